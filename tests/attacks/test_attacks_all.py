"""Every attack passes the conformance kit, on models of two families, locked and not; and what is ours alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from attack_cases import MODELS, QUICK, attacked, build, conformance, context, random_gpt2, released

from attacks.common import prepare
from harness.models.families import find_mlps
from harness.testing import random_llama

for _name in (*QUICK, "authorised", "undo_pmp"):
    globals()[f"Test_{_name}"] = conformance(_name)
Test_offload = pytest.mark.slow(conformance("offload"))
EVERY = pytest.mark.parametrize(("name", "model"), [
    *[(name, model) for name in QUICK for model in MODELS],
    *[pytest.param("offload", model, marks=pytest.mark.slow) for model in ("llama", "dlr_llama")],
])  # fmt: skip


@EVERY
def test_targets_name_the_locks_own_layers(name: str, model: str) -> None:
    result, _ = attacked(name, model)
    inside = [target for target in result.targets if ".mlp.blocks." in target]
    assert bool(inside) == (model.startswith("dlr") and name not in ("frozen_mlp", "redistill", "distil_student"))


@pytest.mark.parametrize("model", MODELS)
def test_frozen_mlp_leaves_every_mlp_as_it_was(model: str) -> None:
    before = [parameter.clone() for site in find_mlps(released(model).model) for parameter in site.module.parameters()]
    for scope in ("attention", "all_but_mlp"):
        result = build("frozen_mlp", scope=scope, max_steps=3).attack(released(model), context())
        after = [parameter for site in find_mlps(result.model) for parameter in site.module.parameters()]
        assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
        assert any("norm" in name or "ln_" in name for name in result.targets) == (scope == "all_but_mlp")


def with_dropout(model: Any, rate: float) -> Any:
    """As a release whose config asks for it is loaded."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = rate
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = rate
    if hasattr(model.config, "attention_dropout"):
        model.config.attention_dropout = rate
    return model.eval()


@pytest.mark.parametrize("make", [random_llama, random_gpt2])
@pytest.mark.parametrize("name", ["full", "lora", "frozen_mlp", "distil_student"])
def test_a_dropout_that_the_release_asks_for_spoils_no_training(name: str, make: Any) -> None:
    """It changes nothing for who runs the model, and trains as the same model with an ordinary rate."""
    losses = [build(name, max_steps=4).attack(released(with_dropout(make(), rate)), context()).training.losses
              for rate in (0.99, 1, 0.1)]  # fmt: skip
    assert losses[0] == losses[1] == losses[2]


def test_ordinary_dropout_stays_as_it_is() -> None:
    for rate in (0.0, 0.05):
        model = prepare(with_dropout(random_gpt2(), rate), context())
        assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {rate}
