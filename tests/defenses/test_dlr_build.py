"""Shapes: parameters match the MLP in every family, impossible settings are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from defenses.dlr import DLRSettings
from defenses.dlr.build import Swap, describe, ranks
from harness.errors import UsageError
from harness.models.families import MLPSite, find_mlps

_SHAPE = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
          "max_position_embeddings": 64}  # fmt: skip
_GLU = _SHAPE | {"intermediate_size": 80, "num_key_value_heads": 2, "head_dim": 8}
FAMILIES: dict[str, Any] = {
    "Llama": _GLU, "Mistral": _GLU, "Qwen2": _GLU, "Qwen3": _GLU, "Gemma": _GLU, "Phi3": _GLU | {"pad_token_id": 0},
    "GPT2": {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "GPTNeoX": _SHAPE | {"intermediate_size": 96}, "OPT": _SHAPE | {"ffn_dim": 96, "word_embed_proj_dim": 32},
}  # fmt: skip


def build(family: str) -> Any:
    torch.manual_seed(0)
    name = {"GPT2": "GPT2LMHeadModel"}.get(family, f"{family}ForCausalLM")
    return getattr(transformers, name)(getattr(transformers, f"{family}Config")(**FAMILIES[family])).eval()


@pytest.mark.parametrize("head", ["residual", "learned"])
@pytest.mark.parametrize("depth", [1, 5, 16])
@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_match_within_two_percent(family: str, depth: int, head: str) -> None:
    model = build(family)
    settings = DLRSettings(depth=depth, head=head, init="random")
    swap = Swap(model, describe(model, settings))
    assert len(swap.nets) == 2
    for site, net in zip(swap.sites, swap.nets, strict=True):
        assert len(net.blocks) == depth
        assert sum(p.numel() for p in net.parameters()) == pytest.approx(site.parameters, rel=0.02)


@pytest.mark.parametrize("family", FAMILIES)
def test_locked_forward_and_back_to_base(family: str) -> None:
    model = build(family)
    ids = torch.arange(12).view(2, 6)
    before = model(ids).logits
    swap = Swap(model, describe(model, DLRSettings(depth=3)))
    pairs, logits = swap.capture(ids)
    assert torch.equal(logits, before)
    assert [tuple(x.shape)[-1] for x, _ in pairs] == [32, 32]
    for site, (x, y) in zip(swap.sites, pairs, strict=True):
        assert torch.allclose(site.module(x), y, atol=1e-6)
    assert not torch.allclose(swap.logits(ids, locked=True), before, atol=1e-6)
    assert torch.equal(swap.logits(ids, locked=False), before)
    swap.locked()
    assert [site.module for site in find_mlps(model)] == swap.nets


@given(width=st.integers(16, 256), hidden=st.integers(48, 1024), depth=st.integers(1, 64))
@hypothesis_settings(max_examples=200, deadline=None)
def test_ranks_use_up_the_parameters(width: int, hidden: int, depth: int) -> None:
    site = MLPSite(name="mlp", path="mlp", module=torch.nn.Identity(), layer=0, hidden_size=width,
                   parameters=3 * width * hidden)  # fmt: skip
    found = ranks(site, DLRSettings(depth=depth), gated=False, bias=False)
    assert len(found) == depth
    assert max(found) - min(found) <= 1
    assert abs(2 * width * sum(found) - site.parameters) <= width


def test_a_block_without_rank_is_refused() -> None:
    with pytest.raises(UsageError, match=r"defense.depth=1024: .*rank 0; allowed: at most 120"):
        describe(build("Llama"), DLRSettings(depth=1024))


def test_impossible_settings_are_refused() -> None:
    for values in ({"rank": 0}, {"depth": 0}, {"norm": "layer"}, {"self_generated": 1.5}, {"nonsense": 1}):
        with pytest.raises(UsageError):
            DLRSettings.parse(values, "defense")
    for settings in (DLRSettings(init="partition", head="learned"), DLRSettings(init="partition", rank=4)):
        with pytest.raises(UsageError, match="partition"):
            describe(build("Llama"), settings)
    with pytest.raises(UsageError, match="Phi3MLP is not made of"):
        describe(build("Phi3"), DLRSettings(init="partition"))


def test_explicit_rank_is_taken() -> None:
    dlr = describe(build("Llama"), DLRSettings(depth=3, rank=5))
    assert dlr["ranks"] == {"model.layers.0.mlp": [5, 5, 5], "model.layers.1.mlp": [5, 5, 5]}
