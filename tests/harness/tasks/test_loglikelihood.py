"""The log-likelihood helper: batch size cannot change a number, every byte counts, and lm-eval's conventions hold."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import Outcome, UsageError
from harness.tasks.loglikelihood import (
    Row,
    context_size,
    continuation_logprobs,
    greedy_texts,
    pair_row,
    rolling_rows,
    score_rows,
    text_logprobs,
)

RELAXED = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = st.text(alphabet=st.characters(codec="ascii", min_codepoint=32), min_size=1, max_size=40)
WORD = TEXT.filter(lambda text: bool(text.strip()))


@RELAXED
@given(pairs=st.lists(st.tuples(TEXT, WORD), min_size=1, max_size=9), batch=st.integers(1, 5))
def test_batch_size_changes_nothing(tiny_llama: Any, pairs: list[tuple[str, str]], batch: int) -> None:
    alone = continuation_logprobs(tiny_llama, pairs, 1)
    assert continuation_logprobs(tiny_llama, pairs, batch) == pytest.approx(alone, abs=1e-4)
    assert continuation_logprobs(tiny_llama, pairs) == pytest.approx(alone, abs=1e-4)


@RELAXED
@given(context=TEXT, continuation=WORD)
def test_equals_a_plain_forward_pass(tiny_llama: Any, context: str, continuation: str) -> None:
    row = pair_row(tiny_llama.tokenizer, context, continuation, 256)
    logits = tiny_llama.model(torch.tensor([row.ids])).logits[0].log_softmax(-1)
    steps = range(len(row.ids) - row.scored, len(row.ids))
    expected = sum(float(logits[i - 1, row.ids[i]]) for i in steps)
    assert continuation_logprobs(tiny_llama, [(context, continuation)])[0] == pytest.approx(expected, abs=1e-4)


@given(text=st.text(min_size=1, max_size=90), size=st.integers(2, 50))
def test_rolling_windows_score_every_token_once(text: str, size: int) -> None:
    tokenizer = _tokenizer()
    ids = tokenizer.encode(text, add_special_tokens=False)
    rows = rolling_rows(tokenizer, text, size)
    scored = [token for row in rows for token in row.ids[len(row.ids) - row.scored :]]
    assert scored == ids
    assert all(len(row.ids) <= size + 1 and row.scored < len(row.ids) for row in rows)


def test_chain_rule(tiny_llama: Any) -> None:
    """log p(ab) = log p(a) + log p(b | a); the first token is predicted from the prefix token."""
    whole, count = text_logprobs(tiny_llama, ["one two"])[0]
    parts = continuation_logprobs(tiny_llama, [("", "one"), ("<eos>one", " two")])
    assert whole == pytest.approx(sum(parts), abs=1e-4)
    assert count == len("one two")


def test_trailing_space_belongs_to_the_continuation(tiny_llama: Any) -> None:
    moved, plain = continuation_logprobs(tiny_llama, [("one ", "two"), ("one", " two")])
    assert moved == pytest.approx(plain, abs=1e-5)


def test_uniform_model_gives_log_vocabulary(tiny_llama: Any) -> None:
    with torch.no_grad():
        tiny_llama.model.lm_head.weight.zero_()
    value, count = text_logprobs(tiny_llama, ["abc" * 200])[0]
    assert value == pytest.approx(-count * math.log(260), rel=1e-6)
    assert count == 600 > context_size(tiny_llama.model)


def test_too_long_context_keeps_its_right_end(tiny_llama: Any) -> None:
    size = context_size(tiny_llama.model)
    row = pair_row(tiny_llama.tokenizer, "x" * 1000 + "abc", "de", size)
    assert len(row.ids) == size + 1
    assert tiny_llama.tokenizer.decode(row.ids[-5:]) == "abcde"


@pytest.mark.parametrize("continuation", ["", "y" * 300])
def test_impossible_continuations_are_refused(tiny_llama: Any, continuation: str) -> None:
    with pytest.raises(UsageError, match="continuation"):
        continuation_logprobs(tiny_llama, [("x", continuation)])


def test_order_of_rows_is_kept(tiny_llama: Any) -> None:
    rows = [Row(list(range(3, 3 + n)), 1) for n in (5, 2, 9, 3)]
    alone = [score_rows(tiny_llama.model, [row])[0][0] for row in rows]
    assert alone == pytest.approx([value for value, _ in score_rows(tiny_llama.model, rows)], abs=1e-4)


def test_nan_weights_are_an_outcome(tiny_llama: Any) -> None:
    with torch.no_grad():
        tiny_llama.model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(Outcome, match="collapsed"):
        text_logprobs(tiny_llama, ["abc"])


def test_greedy_text_does_not_depend_on_neighbours(tiny_llama: Any) -> None:
    prompts = ["abc", "de", "xyz", "a longer prompt"]
    together = greedy_texts(tiny_llama, prompts, 6)
    assert together == [greedy_texts(tiny_llama, [prompt], 6)[0] for prompt in prompts]


def _tokenizer() -> Any:
    from harness.testing import byte_tokenizer

    return byte_tokenizer()
