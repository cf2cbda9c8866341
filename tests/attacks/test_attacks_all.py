"""What must hold for every attack on every model, locked or not (design invariants 2, 3, 8 and 10)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from attack_cases import MODELS, QUICK, attacked, build, context, released

from harness.errors import OutOfMemory, OverBudget
from harness.models.digest import weights_digest
from harness.models.families import find_mlps

EVERY = pytest.mark.parametrize(("name", "model"), [
    *[(name, model) for name in QUICK for model in MODELS],
    *[pytest.param("offload", model, marks=pytest.mark.slow) for model in ("llama", "dlr_llama")],
])  # fmt: skip


@EVERY
def test_it_proves_that_it_attacked(name: str, model: str) -> None:
    result, _ = attacked(name, model)
    training = result.training
    assert training.steps == 12
    assert len(training.trained) > 0
    assert not training.unmoved
    assert not training.missing_gradients
    assert not training.nonfinite_gradients
    assert sum(training.losses[-3:]) / 3 < training.losses[0] - 0.02


@EVERY
def test_the_attacked_model_is_plain_and_works(name: str, model: str) -> None:
    found: Any = attacked(name, model)[0].model
    assert not found.training
    assert {parameter.dtype for parameter in found.parameters()} == {torch.float32}
    assert not any("lora" in key or "base_layer" in key for key in found.state_dict())
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert found(input_ids=ids).logits.isfinite().all()
        assert found.generate(ids, max_new_tokens=4, min_new_tokens=4, do_sample=False).shape == (1, 7)


@EVERY
def test_targets_name_the_locks_own_layers(name: str, model: str) -> None:
    result, _ = attacked(name, model)
    inside = [target for target in result.targets if ".mlp.blocks." in target]
    assert len(set(result.targets)) == len(result.targets) > 0
    assert bool(inside) == (model.startswith("dlr") and name not in ("frozen_mlp", "redistill", "distil_student"))


@EVERY
def test_exactly_the_targets_changed(name: str, model: str) -> None:
    result, _ = attacked(name, model)
    before, after = released(model).model.state_dict(), result.model.state_dict()
    after = {key: value for key, value in after.items() if key in before}
    changed = {key for key, value in after.items() if not torch.equal(value, before[key])}
    targets = tuple(result.targets)
    reached = {key for key in changed if key.startswith(targets)}
    assert all(any(key.startswith(target) for key in changed) for target in targets if any(
        key.startswith(target) for key in after))  # fmt: skip
    tied = {"lm_head.weight"} if result.model.config.tie_word_embeddings else set()
    assert changed - reached <= tied


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("model", ["llama", "dlr_llama"])
def test_the_budget_of_steps_is_a_limit(name: str, model: str) -> None:
    where = context(budget="steps=4")
    result = build(name).attack(released(model), where)
    undo = where.meter.bills["undo"].steps if "undo" in where.meter.bills else 0
    assert where.meter.total.steps == 4
    assert result.training.steps == 4 - undo >= 2
    assert result.training.stopped_by == "steps"


@pytest.mark.parametrize("name", QUICK)
def test_no_model_comes_out_of_an_impossible_budget(name: str) -> None:
    with pytest.raises(OverBudget):
        build(name).attack(released("dlr_llama"), context(budget="tokens=100"))
    with pytest.raises(OutOfMemory):
        build(name).attack(released("dlr_llama"), context(budget="memory=100KiB"))


@pytest.mark.parametrize("name", QUICK)
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(name: str) -> None:
    again = build(name).attack(released("dlr_llama"), context()).model
    other = build(name).attack(released("dlr_llama"), context(seed=1)).model
    first = weights_digest(attacked(name, "dlr_llama")[0].model)
    assert weights_digest(again) == first
    assert weights_digest(other) != first


@pytest.mark.parametrize("name", QUICK)
def test_a_frozen_half_precision_release_is_attacked_all_the_same(name: str) -> None:
    target = released("dlr_llama")
    target.model.to(torch.bfloat16).requires_grad_(False).train()
    result = build(name, max_steps=4).attack(target, context())
    assert not result.training.unmoved
    assert {parameter.dtype for parameter in result.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("model", MODELS)
def test_frozen_mlp_leaves_every_mlp_as_it_was(model: str) -> None:
    before = [parameter.clone() for site in find_mlps(released(model).model) for parameter in site.module.parameters()]
    for scope in ("attention", "all_but_mlp"):
        result = build("frozen_mlp", scope=scope, max_steps=3).attack(released(model), context())
        after = [parameter for site in find_mlps(result.model) for parameter in site.module.parameters()]
        assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
        assert any("norm" in name or "ln_" in name for name in result.targets) == (scope == "all_but_mlp")


@pytest.mark.parametrize("name", QUICK)
def test_the_trajectory_is_scored_by_the_probe_and_paid_by_nobody(name: str) -> None:
    seen: list[bool] = []
    where = context(probe=lambda model: float(not seen.append(model.training)))
    result = build(name, max_steps=4, eval_points=2).attack(released("llama"), where)
    assert [point.step for point in result.training.trajectory] == [0, 2, 4]
    assert seen == [False] * 3
    before = where.meter.bills["undo"].tokens if "undo" in where.meter.bills else 0
    assert result.training.trajectory[-1].tokens == where.meter.total.tokens == before + 4 * 4 * 32
