"""Every attack passes the conformance kit, on models of two families, locked and not; and what is ours alone."""

from __future__ import annotations

import pytest
import torch
from attack_cases import MODELS, QUICK, attacked, build, conformance, context, released

from harness.models.families import find_mlps

for _name in QUICK:
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
