"""The undo of SpecDef finds what sticks out, brings it down, gives the function back; other models it leaves alone."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from attack_cases import build, context, random_gpt2, released

from attacks.spectral_repair import lower, outlying
from attacks.undo_specdef import UndoSpecDefSettings
from defenses.specdef.spectrum import Top, TopSingularValues, as_matrix, matrices
from harness.models.digest import weights_digest
from harness.testing import random_llama

SETTINGS = UndoSpecDefSettings()
STILL = {"max_steps": 1, "learning_rate": 1e-9}
"""A fine-tuning that leaves the undone model as it is."""


def deformed(base: Any, factor: float = 10, k: int = 2) -> Any:
    """`base` with the top `k` singular values of every matrix at `factor` times the largest: a lock without a retain
    loss, so that clipping gives the base back almost exactly."""
    with torch.no_grad():
        for weight in matrices(base).values():
            u, s, v = torch.linalg.svd(as_matrix(weight), full_matrices=False)
            as_matrix(weight).add_((u[:, :k] * (factor * s[0] - s[:k])) @ v[:k])
    return base


def tops(model: Any) -> dict[str, float]:
    return {name: float(torch.linalg.matrix_norm(as_matrix(weight).detach(), 2))
            for name, weight in matrices(model).items()}  # fmt: skip


@pytest.mark.parametrize("make", [random_llama, random_gpt2])
@pytest.mark.parametrize("repair", ["clip", "rescale"])
def test_the_spectrum_comes_down_to_near_the_bases(make: Any, repair: str) -> None:
    before = tops(make())
    result = build("undo_specdef", repair=repair, distil_steps=0, **STILL).attack(released(deformed(make())), context())
    after = tops(result.model)
    assert result.report["repaired"].keys() == before.keys()
    assert all(0.7 * value < after[name] < 1.1 * value for name, value in before.items())
    for name, found in result.report["repaired"].items():
        assert found["values"] == pytest.approx([10 * before[name]] * 2, rel=1e-3)
        assert found["ceiling"] < before[name]


@pytest.mark.parametrize("lock", [
    {"defense": "specdef", "settings": {"k": 10}},
    {"defense": "dlr+specdef", "settings": {"dlr": {"depth": 8}, "specdef": {"k": 10}}},
])  # fmt: skip
def test_the_release_tells_how_many_values_a_lock_inflates(lock: dict[str, Any]) -> None:
    """Looking for outlying values among the first nine finds none of ten: then nothing would be undone."""
    before = tops(random_llama())
    named = dataclasses.replace(released(deformed(random_llama(), k=10)), lock=lock)
    result = build("undo_specdef", distil_steps=0, **STILL).attack(named, context())
    assert len(result.report["repaired"]) == result.report["matrices"] == len(before)
    assert {len(found["values"]) for found in result.report["repaired"].values()} == {10}
    assert all(value < 1.1 * before[name] for name, value in tops(result.model).items())
    unnamed = build("undo_specdef", distil_steps=0, **STILL).attack(released(deformed(random_llama(), k=10)), context())
    assert unnamed.report["repaired"] == {}
    told = build("undo_specdef", k=10, distil_steps=0, **STILL)
    assert weights_digest(told.attack(released(deformed(random_llama(), k=10)), context()).model) == weights_digest(
        result.model)  # fmt: skip


def test_a_release_that_tells_of_more_values_than_a_spectrum_could_hide_is_not_believed() -> None:
    settings = {"defense": "specdef", "settings": {"k": 100_000}}
    lying = dataclasses.replace(released(deformed(random_llama())), lock=settings)
    result = build("undo_specdef", distil_steps=0, **STILL).attack(lying, context())
    assert len(result.report["repaired"]) == result.report["matrices"]


def test_the_distillation_gives_the_function_back_and_is_on_the_undos_bill() -> None:
    locked = deformed(random_llama(), factor=4)
    with torch.no_grad():
        locked.lm_head.weight.mul_(10)
    ids = torch.arange(3, 131).view(4, 32)
    target = locked(input_ids=ids).logits.log_softmax(-1).detach()

    def distance(steps: int) -> tuple[float, Any]:
        where = context()
        attack = build("undo_specdef", distil_steps=steps, distil_learning_rate=5e-3, sampled_tokens=1000, **STILL)
        result = attack.attack(released(copy.deepcopy(locked)), where)
        logits = result.model(input_ids=ids).logits.log_softmax(-1)
        assert max(tops(result.model).values()) < 0.7 * max(tops(locked).values())
        return float(torch.nn.functional.kl_div(logits, target, log_target=True, reduction="batchmean")), where.meter

    (without, free), (repaired, paid) = distance(0), distance(40)
    assert repaired < 0.8 * without
    assert free.bills["undo"].steps == 0
    assert paid.bills["undo"].steps == 40
    assert paid.bills["undo"].tokens >= 1000 + 40 * 4 * 32
    assert free.bills["undo"].forward_flops > 0  # the power iteration
    assert paid.bills["attack"].steps == 1


@pytest.mark.parametrize(("repair", "model"), [("clip", "llama"), ("none", "deformed")])
def test_without_a_lock_or_without_repair_it_is_full_fine_tuning(repair: str, model: str) -> None:
    def make() -> Any:
        return released(deformed(random_llama()) if model == "deformed" else random_llama())

    plain = build("full").attack(make(), context()).model
    undone = build("undo_specdef", repair=repair).attack(make(), context())
    assert undone.report["repaired"] == {}
    assert weights_digest(undone.model) == weights_digest(plain)


def top(*values: float) -> Top:
    return Top(u=torch.eye(len(values)), values=torch.tensor(values), v=torch.eye(len(values)))


def test_a_few_gaps_are_natural_and_many_are_a_lock() -> None:
    flat, gapped, wide = top(5, 4.5, 4, 3.8), top(9, 4.5, 4, 3.8), top(30, 28, 5, 4.5)
    assert outlying({"a": flat, "b": gapped, "c": flat}, SETTINGS) == ({}, pytest.approx(1.125))
    assert outlying({"a": wide, "b": gapped, "c": flat}, SETTINGS) == ({"a": 2, "b": 1}, pytest.approx(2.0))
    assert outlying({}, SETTINGS)[0] == {}


def test_lowering_changes_the_outlying_values_only() -> None:
    weight = torch.diag(torch.tensor([40.0, 20.0, 5.0, 4.0, 1.0]))
    for repair, wanted in (("clip", [5, 5, 5, 4, 1]), ("rescale", [5, 5, 4, 2.5, 1])):
        changed = weight.clone()
        follow = TopSingularValues({"w": changed}, 3)
        follow.settle()
        lower(changed, follow.refresh()["w"], 2, repair)
        torch.testing.assert_close(torch.linalg.svdvals(changed), torch.tensor([float(x) for x in wanted]),
                                   rtol=1e-3, atol=1e-3)  # fmt: skip


@pytest.mark.parametrize("budget", ["steps=10", "tokens=6000", "flops=6e8"])
def test_the_undoing_leaves_half_of_any_budget_to_the_fine_tuning(budget: str) -> None:
    where = context(budget=budget)
    result = build("undo_specdef", distil_steps=1000, max_steps=1000).attack(released(deformed(random_llama())), where)
    name = budget.partition("=")[0]
    spent = {stage: getattr(bill, name) for stage, bill in where.meter.bills.items()}
    assert result.training.steps >= 1
    assert spent["attack"] >= 0.2 * sum(spent.values())
    assert spent["undo"] > 0
    assert sum(spent.values()) <= getattr(where.meter.budget, name)
