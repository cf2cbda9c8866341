"""The low-precision attacks really hold low-precision numbers while they train."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from attack_cases import build, context, released
from hypothesis import given, settings
from hypothesis import strategies as st

bnb = pytest.importorskip("bitsandbytes")


@pytest.mark.parametrize("model", ["llama", "dlr_llama", "dlr_gpt2"])
def test_qlora_holds_every_target_in_four_bits_throughout(model: str) -> None:
    seen: list[set[tuple[Any, ...]]] = []

    def probe(found: Any) -> float:
        layers = [module for module in found.modules() if isinstance(module, bnb.nn.Linear4bit)]
        kinds = {(layer.weight.dtype, layer.weight.quant_state.quant_type) for layer in layers}
        size = sum(layer.weight.nbytes for layer in layers if layer.weight.requires_grad is False)
        seen.append({*kinds, ("bytes", size), ("layers", len(layers))})
        return 0.0

    target = released(model)
    weights = sum(target.model.get_submodule(name).weight.numel()
                  for name in build("qlora", max_steps=1).attack(released(model), context()).targets)  # fmt: skip
    result = build("qlora", max_steps=4, eval_points=2).attack(target, context(probe=probe))
    expected = {(torch.uint8, "nf4"), ("bytes", result.report["quantized_bytes"]), ("layers", len(result.targets))}
    assert seen == [expected] * 3
    assert weights / 2 <= result.report["quantized_bytes"] <= weights / 2 + len(result.targets)


@settings(max_examples=25, deadline=None)
@given(outputs=st.integers(1, 70), inputs=st.integers(1, 70), bias=st.booleans(), double=st.booleans())
def test_any_shape_survives_quantizing_and_back(outputs: int, inputs: int, bias: bool, double: bool) -> None:
    """Ranks of a lock need not be multiples of the block size."""
    from attacks.common import eagerly
    from attacks.qlora import plain, quantized

    torch.manual_seed(outputs * 71 + inputs)
    layer = torch.nn.Linear(inputs, outputs, bias=bias)
    original = layer.weight.detach().clone()
    x = torch.randn(3, inputs)
    with eagerly():
        held = quantized(layer, double)
        back = plain(held, torch.zeros(outputs, inputs))
        assert torch.allclose(back(x), held(x), atol=1e-5)
    assert held.weight.dtype == torch.uint8
    assert back.weight.shape == original.shape
    assert (back.weight - original).norm() < 0.2 * original.norm()


def test_qlora_with_zero_learning_is_the_quantized_model_and_says_so() -> None:
    result = build("qlora", max_steps=1, learning_rate=1e-9).attack(released("llama"), context())
    weight = result.model.get_submodule(result.targets[0]).weight.detach()
    assert weight.numel() == 1024
    assert len(weight.round(decimals=6).unique()) <= 16 * 16  # 16 levels in each of 16 blocks
    assert result.report["score_includes_quantization"] is True


@pytest.mark.parametrize("model", ["llama", "dlr_llama"])
def test_full_8bit_keeps_its_states_in_eight_bits(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    real = bnb.optim.AdamW8bit

    def remember(*arguments: Any, **options: Any) -> Any:
        made.append(real(*arguments, **options))
        return made[-1]

    monkeypatch.setattr("bitsandbytes.optim.AdamW8bit", remember)
    where, other = context(), context()
    build("full_8bit").attack(released(model), where)
    build("full").attack(released(model), other)
    states = [(parameter.numel(), state) for parameter, state in made[0].state.items()]
    assert len(states) > 10
    assert {state[key].dtype for size, state in states for key in ("state1", "state2") if size >= 256} == {torch.uint8}
    assert where.meter.bills["attack"].optimizer_bytes < 0.3 * other.meter.bills["attack"].optimizer_bytes
