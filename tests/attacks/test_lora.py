"""Adapters: on exactly the targets, no larger than the layer, merged without a trace."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from attack_cases import build, context, released

from attacks.lora import add_adapters, thin
from harness.targets import linear_targets


@pytest.mark.parametrize("model", ["llama", "dlr_llama", "dlr_gpt2"])
@pytest.mark.parametrize("r", [4, 64])
def test_rank_stops_at_the_shorter_side_and_the_scale_stays(model: str, r: int) -> None:
    target = released(model).model
    names = linear_targets(target, "all-linear")
    settings = build("lora", r=r, lora_alpha=2 * r).settings
    sides = {name: min(target.get_submodule(name).weight.shape) for name in names}
    assert {name: side for side, group in thin(target, names, r).items() for name in group} == {
        name: side for name, side in sides.items() if side < r}  # fmt: skip
    add_adapters(target, names, settings, seed=0)
    for name in names:
        layer: Any = target.get_submodule(name)
        assert layer.r["default"] == min(r, sides[name])
        assert layer.scaling["default"] == pytest.approx(2.0)


def test_merging_keeps_the_function() -> None:
    target = released("dlr_llama").model
    adapted = add_adapters(target, linear_targets(target, "all-linear"), build("lora", r=4).settings, seed=0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    ids = torch.arange(3, 35).view(1, 32)
    with torch.no_grad():
        before = adapted(input_ids=ids).logits
        merged = build("lora").merge(copy.deepcopy(adapted))
        assert torch.allclose(merged(input_ids=ids).logits, before, atol=1e-5)


def test_a_chosen_list_trains_only_that() -> None:
    result = build("lora", target_modules=["q_proj", "v_proj"], max_steps=4).attack(released("llama"), context())
    assert result.targets == [f"model.layers.{i}.self_attn.{n}" for i in range(2) for n in ("q_proj", "v_proj")]
    assert len(result.training.trained) == 8


def test_the_global_random_state_is_left_alone() -> None:
    target = released("llama").model
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    add_adapters(target, linear_targets(target, "all-linear"), build("lora").settings, seed=0)
    assert torch.equal(torch.rand(3), expected)
