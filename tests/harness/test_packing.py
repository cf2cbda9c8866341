"""Packing keeps every token once an epoch, and batches are a pure function of (step, micro)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.packing import PackedBlocks, tokenize


@given(st.integers(1, 400), st.integers(2, 16), st.integers(1, 5), st.integers(1, 3), st.integers(0, 2**32))
def test_each_epoch_shows_every_block_once(tokens: int, block: int, batch: int, accumulate: int, seed: int) -> None:
    data = PackedBlocks(np.arange(tokens), block_size=block, batch_size=batch, accumulate=accumulate, seed=seed)
    count = max(1, tokens // block)
    assert data.blocks.shape == (count, block)
    calls = -(-2 * count // batch)
    rows = [row for call in range(calls) for row in data(*divmod(call, accumulate))["input_ids"][:, 0].tolist()]
    for epoch in range(2):
        assert sorted(rows[epoch * count : (epoch + 1) * count]) == sorted(data.blocks[:, 0].tolist())


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 1)), min_size=1, max_size=20))
def test_order_of_calls_does_not_matter(calls: list[tuple[int, int]]) -> None:
    shared = PackedBlocks(np.arange(100), block_size=4, batch_size=3, accumulate=2, seed=5)
    for step, micro in calls:
        fresh = PackedBlocks(np.arange(100), block_size=4, batch_size=3, accumulate=2, seed=5)
        assert torch.equal(shared(step, micro)["input_ids"], fresh(step, micro)["input_ids"])


def test_accumulated_micro_batches_are_the_rows_of_the_whole_batch() -> None:
    whole = PackedBlocks(np.arange(400), block_size=4, batch_size=8, seed=1)
    parts = PackedBlocks(np.arange(400), block_size=4, batch_size=2, accumulate=4, seed=1)
    for step in range(20):
        joined = torch.cat([parts(step, micro)["input_ids"] for micro in range(4)])
        assert torch.equal(whole(step, 0)["input_ids"], joined)


def test_epochs_and_seeds_differ() -> None:
    a, b = (PackedBlocks(np.arange(400), block_size=4, batch_size=100, seed=seed) for seed in (0, 1))
    orders = [a(0, 0), a(1, 0), b(0, 0)]
    assert len({tuple(order["input_ids"][:, 0].tolist()) for order in orders}) == 3


def test_a_short_text_is_repeated_to_one_block() -> None:
    data = PackedBlocks(np.array([1, 2, 3]), block_size=8, batch_size=2, seed=0)
    assert data.blocks.tolist() == [[1, 2, 3, 1, 2, 3, 1, 2]]


def test_tokenize_ends_each_document_and_loses_nothing(tiny_llama: Any) -> None:
    texts = ["def f():\n", "naïve — 雪", ""]
    ids = tokenize(texts, tiny_llama.tokenizer)
    assert (ids == tiny_llama.tokenizer.eos_token_id).sum() == 3
    assert ids.dtype == np.int32
    assert tiny_llama.tokenizer.decode(ids, skip_special_tokens=True) == "".join(texts)


@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
def test_no_text_is_a_usage_error(texts: list[str], tiny_llama: Any) -> None:
    with pytest.raises(UsageError, match="no training text"):
        tokenize(texts, tiny_llama.tokenizer)
