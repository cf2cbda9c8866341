"""Only one end of the depth trains, of the decoder and of a lock's nets."""

from __future__ import annotations

from typing import Any

import pytest
from attack_cases import build, context, lock_like_dlr, released

from harness.testing import random_llama


def targets(model: Any = "dlr_llama", **settings: Any) -> list[str]:
    result = build("partial_depth", max_steps=2, **settings).attack(released(model), context())
    return list(result.targets)


@pytest.mark.parametrize(("settings", "layers"), [
    ({}, {1}), ({"end": "first"}, {0}), ({"layers": 2}, {0, 1}), ({"layers": 9, "end": "first"}, {0, 1}),
])  # fmt: skip
def test_the_chosen_layers_train_whole_and_nothing_else(settings: dict[str, Any], layers: set[int]) -> None:
    names = dict(released("dlr_llama").model.named_parameters())
    prefixes = tuple(f"model.layers.{index}." for index in layers)
    assert targets(**settings) == [name for name in names if name.startswith(prefixes)]


@pytest.mark.parametrize(("end", "kept"), [("first", {0}), ("last", {3})])
def test_blocks_cut_the_depth_of_a_locks_net(end: str, kept: set[int]) -> None:
    found = targets(end=end, layers=2, blocks=1)
    assert {int(name.split(".blocks.")[1].split(".")[0]) for name in found if ".blocks." in name} == kept
    assert any(".self_attn." in name for name in found)


def test_an_odd_number_of_layers_is_rounded_up() -> None:
    found = targets(random_llama(num_hidden_layers=3))
    assert {name.split(".")[2] for name in found} == {"1", "2"}


def test_below_the_last_layers_nothing_is_kept_for_backward() -> None:
    def kept(layers: int, depth: int) -> int:
        where = context()
        model = lock_like_dlr(random_llama(num_hidden_layers=4), depth)
        build("partial_depth", layers=layers, max_steps=1).attack(released(model), where)
        return where.meter.bills["attack"].kept_for_backward_bytes

    price = [kept(layers, 16) - kept(layers, 4) for layers in (1, 4)]  # of a deeper lock
    assert price[1] == pytest.approx(4 * price[0], rel=0.05)
    assert kept(1, 16) < 0.5 * kept(4, 16)
