"""KL and agreement a token: known values on models made for it, symmetries, and the refusal of a model with itself."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import pytest
import torch

from harness.errors import UsageError
from harness.utility import UtilitySpec
from harness.utility.fidelity import fidelity, heldout_blocks
from harness.utility.perplexity import heldout_pieces, perplexity

BLOCKS = torch.arange(3, 3 + 96).reshape(3, 32)


def changed(released: Any, scale: float = 0.0, shift: float = 0.0) -> Any:
    """A copy whose output weights are scaled, or moved by noise."""
    model = copy.deepcopy(released.model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        weight = model.lm_head.weight
        weight.mul_(scale) if shift == 0 else weight.add_(shift * torch.randn(weight.shape, generator=generator))
    return dataclasses.replace(released, model=model, digest="1" * 64)


def test_refuses_a_model_with_itself(tiny_llama: Any) -> None:
    with pytest.raises(UsageError, match="same weights"):
        fidelity(tiny_llama, dataclasses.replace(tiny_llama, name="other"), BLOCKS)


def test_refuses_other_vocabularies(tiny_llama: Any) -> None:
    other = changed(tiny_llama, scale=1.0)
    other.model.resize_token_embeddings(100)
    with pytest.raises(UsageError, match="vocabularies of 260 and 100"):
        fidelity(tiny_llama, other, BLOCKS)


def test_equal_functions_have_no_divergence(tiny_llama: Any) -> None:
    found = fidelity(tiny_llama, changed(tiny_llama, scale=1.0), BLOCKS)
    assert found == {"kl": 0.0, "top1_agreement": 1.0, "dtype": "float32", "n_tokens": 96}


def test_against_uniform_it_is_the_entropy_gap(tiny_llama: Any) -> None:
    """KL(p || uniform) = log V - H(p)."""
    found = fidelity(tiny_llama, changed(tiny_llama, scale=0.0), BLOCKS)
    with torch.no_grad():
        logp = tiny_llama.model(BLOCKS).logits.log_softmax(-1)
    entropy = -(logp.exp() * logp).sum(-1).mean()
    assert found["kl"] == pytest.approx(math.log(260) - float(entropy), abs=1e-6)


def test_direction_and_batching(tiny_llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    other = changed(tiny_llama, shift=0.5)
    there, back = fidelity(tiny_llama, other, BLOCKS), fidelity(other, tiny_llama, BLOCKS)
    assert there["kl"] > 0 < back["kl"]
    assert there["kl"] != pytest.approx(back["kl"], rel=1e-3)
    assert there["top1_agreement"] == back["top1_agreement"] < 1
    monkeypatch.setattr("harness.utility.fidelity.logit_elements", lambda model: 1)
    assert fidelity(tiny_llama, other, BLOCKS)["kl"] == pytest.approx(there["kl"], abs=1e-6)


def test_blocks_longer_than_the_context_are_cut(tiny_llama: Any) -> None:
    blocks = torch.randint(3, 260, (2, 300), generator=torch.Generator().manual_seed(0))
    assert fidelity(tiny_llama, changed(tiny_llama, shift=0.5), blocks)["n_tokens"] == 2 * 256


def test_heldout_text_is_stable_and_sized(tiny_llama: Any) -> None:
    spec = UtilitySpec(perplexity_tokens=3000, perplexity_piece_bytes=500)
    pieces = heldout_pieces(tiny_llama.tokenizer, spec, None)
    assert pieces == heldout_pieces(tiny_llama.tokenizer, spec, None)
    assert 3000 <= sum(len(piece.text.encode()) for piece in pieces) < 3600
    blocks = heldout_blocks(tiny_llama.tokenizer, spec, None)
    assert blocks.shape[1] == 256
    assert perplexity(tiny_llama, spec, None).tokens == sum(len(piece.text.encode()) for piece in pieces)


def test_unknown_corpus(tiny_llama: Any) -> None:
    with pytest.raises(UsageError, match="python_dox"):
        perplexity(tiny_llama, UtilitySpec.parse({"perplexity_corpus": "python_dox"}, "utility"), None)
