"""The digest sees every bit of the weights, and nothing else."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from harness.models import digest
from harness.models.digest import files_digest, unique_tensors, weights_digest


def small() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3, bias=False))
    model.register_buffer("scratch", torch.zeros(2), persistent=False)
    return model


def test_by_hand() -> None:
    model = nn.Linear(2, 1)
    expected = hashlib.sha256()
    for name, shape in (("bias", "(1,)"), ("weight", "(1, 2)")):
        expected.update(f"{name}\0float32\0{shape}\0".encode() + getattr(model, name).detach().numpy().tobytes())
    assert weights_digest(model) == expected.hexdigest()


@given(name=st.sampled_from(sorted(small().state_dict())), index=st.integers(0, 8), bit=st.integers(0, 7))
@settings(max_examples=60, deadline=None)
def test_any_flipped_bit_changes_it(name: str, index: int, bit: int) -> None:
    model = small()
    before = weights_digest(model)
    data = model.state_dict()[name].reshape(-1).view(torch.uint8)
    data[index % data.numel()] ^= 1 << bit
    assert weights_digest(model) != before
    data[index % data.numel()] ^= 1 << bit
    assert weights_digest(model) == before


def test_dtype_shape_and_name_count() -> None:
    assert weights_digest(small()) != weights_digest(small().bfloat16())
    wide, tall = nn.Linear(2, 3, bias=False), nn.Linear(3, 2, bias=False)
    tall.weight.data = wide.weight.data.reshape(2, 3)
    assert weights_digest(wide) != weights_digest(tall)
    assert weights_digest(nn.ModuleDict({"a": wide})) != weights_digest(nn.ModuleDict({"b": wide}))


def test_scratch_buffers_training_mode_layout_and_chunks_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small()
    before = weights_digest(model)
    model.scratch.fill_(7)
    model.eval()
    model[0].weight.data = model[0].weight.data.t().contiguous().t()
    monkeypatch.setattr(digest, "_CHUNK", 5)
    assert weights_digest(model) == before


def test_tied_tensors_count_once(tiny_llama: Any) -> None:
    from transformers import LlamaForCausalLM

    config = copy.deepcopy(tiny_llama.model.config)
    config.tie_word_embeddings = True
    model = LlamaForCausalLM(config)
    names = list(unique_tensors(model))
    assert "lm_head.weight" in names
    assert "model.embed_tokens.weight" not in names
    assert weights_digest(model) != weights_digest(tiny_llama.model)


def test_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_text("x")
    first = files_digest(tmp_path)
    (tmp_path / "sub" / "a.txt").rename(tmp_path / "sub" / "b.txt")
    assert files_digest(tmp_path) != first
    line = f"sub/b.txt\0{hashlib.sha256(b'x').hexdigest()}\n"
    assert files_digest(tmp_path) == hashlib.sha256(line.encode()).hexdigest()
