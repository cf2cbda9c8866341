"""Longer attacks, until more steps bring nothing: which lengths are run, which is kept, and who pays."""

from __future__ import annotations

import dataclasses
from typing import Any

import pmp_cases
import pytest
import torch
from attack_cases import build, context, lock_like_specdef, released

from attacks.undo_until_flat import undo_of
from harness import registry
from harness.bill import Bill
from harness.plugins import Released
from harness.search.curve import Trial, curve
from harness.testing import random_llama
from harness.training import TrainResult, TrajectoryPoint


def scripted(monkeypatch: pytest.MonkeyPatch, scores: dict[int, float]) -> list[dict[str, torch.Tensor]]:
    """Training that ends at the score of its length and sets every weight to that score; what each run started from."""
    starts: list[dict[str, torch.Tensor]] = []

    def finetune(model: Any, tokenizer: Any, where: Any, settings: Any, **options: Any) -> TrainResult:
        starts.append({name: value.detach().clone() for name, value in model.named_parameters()})
        steps = settings.max_steps
        where.meter.charge(Bill(steps=steps, tokens=10 * steps, forward_flops=steps))
        with torch.no_grad():
            for value in model.parameters():
                value.fill_(scores[steps])
        points = [TrajectoryPoint(step=step, tokens=0, flops=where.meter.total.flops - steps + step, score=score)
                  for step, score in ((0, 0.0), (steps, scores[steps]))]  # fmt: skip
        return TrainResult(steps=steps, losses=[1.0, 0.5], trajectory=points)

    monkeypatch.setattr("harness.finetune.finetune", finetune)
    return starts


@pytest.mark.parametrize(("scores", "lengths", "chosen"), [
    ({10: 1.0, 20: 2.0, 40: 2.03125}, [10, 20, 40], 2),
    ({10: 1.0, 20: 2.0, 40: 1.5}, [10, 20, 40], 1),
    ({10: 1.0, 20: 2.0, 40: 3.0, 80: 4.0}, [10, 20, 40, 80], 3),
    ({10: 1.0, 20: 0.5}, [10, 20], 0),
    ({10: -1.0, 20: -0.5, 40: 3.0, 80: 3.0}, [10, 20, 40, 80], 2),
    ({10: -5.0, 20: -4.875, 40: 2.0, 80: 2.03125}, [10, 20, 40, 80], 3),
    ({10: -3.0, 20: -4.0, 40: -5.0, 80: -5.0}, [10, 20, 40, 80], 0),
])  # fmt: skip
def test_it_doubles_until_that_brings_nothing_and_keeps_the_best(
    scores: dict[int, float], lengths: list[int], chosen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts, where, model = scripted(monkeypatch, scores), context(), released("llama")
    untouched = {name: value.detach().clone() for name, value in model.model.named_parameters()}
    result = build("until_flat", max_steps=10, doublings=3).attack(model, where)
    assert [run["steps"] for run in result.report["runs"]] == lengths
    assert result.report["chosen"] == chosen
    assert all(torch.equal(start[name], value) for start in starts for name, value in untouched.items())
    assert {float(value) for p in result.model.parameters() for value in p.unique()} == {scores[lengths[chosen]]}
    assert where.meter.bills["attack"].steps == sum(lengths)
    steps = [point.step for point in result.training.trajectory]
    assert steps == [sum(lengths[:index]) for index in range(len(lengths) + 1)]
    assert [point.flops for point in result.training.trajectory] == steps  # all that was paid, to the end
    kept = [0.0, *(scores[min(length, lengths[chosen])] for length in lengths)]
    assert [point.score for point in result.training.trajectory] == kept


@pytest.mark.parametrize(("budget", "lengths"), [
    ("steps=25", [10]), ("steps=30", [10, 20]), ("steps=69", [10, 20]), ("steps=70", [10, 20, 40]),
    ("tokens=299", [10]), ("tokens=300", [10, 20]), ("flops=30", [10, 20]), ("flops=29", [10]),
])  # fmt: skip
def test_a_budget_without_room_for_twice_as_much_ends_it(
    budget: str, lengths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, {10: 1.0, 20: 2.0, 40: 4.0, 80: 8.0})
    result = build("until_flat", max_steps=10, doublings=3).attack(released("llama"), context(budget=budget))
    assert [run["steps"] for run in result.report["runs"]] == lengths


@pytest.mark.parametrize(("rate", "lengths", "flat"), [
    (2e-3, [10, 20, 40], False), (5e-4, [10, 20], True), (6e-7, [10, 10, 20, 20, 40], False),
])  # fmt: skip
def test_a_rate_far_from_the_default_is_tried_beside_it_until_each_is_flat(
    rate: float, lengths: list[int], flat: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is best for a short run against a lock that moves the rate is not what is best for a long one."""
    ends = {2e-3: {10: 0.2, 20: 0.9, 40: 2.5}, 5e-4: {10: 1.0, 20: 1.02}, 6e-7: {10: 1.0, 20: 1.02}}

    def finetune(model: Any, tokenizer: Any, where: Any, settings: Any, **options: Any) -> TrainResult:
        steps = settings.max_steps
        where.meter.charge(Bill(steps=steps, tokens=steps, forward_flops=steps))
        scores = {0: 0.0, steps: ends[settings.learning_rate][steps]}
        points = [TrajectoryPoint(step=step, tokens=0, flops=0, score=score) for step, score in scores.items()]
        return TrainResult(steps=steps, losses=[1.0], trajectory=points)

    monkeypatch.setattr("harness.finetune.finetune", finetune)
    where = context()
    attack = build("until_flat", max_steps=10, doublings=2, learning_rate=rate)
    report = attack.attack(released("llama"), where).report
    assert [run["steps"] for run in report["runs"]] == lengths
    assert {run["learning_rate"] for run in report["runs"]} == ({rate, 2e-3} if rate < 1e-5 else {rate})
    assert report["flat"] is flat
    assert report["runs"][report["chosen"]]["score"] == max(run["score"] for run in report["runs"])
    assert where.meter.bills["attack"].steps == sum(lengths)


def test_without_a_probe_the_loss_says_when_it_is_flat() -> None:
    where = dataclasses.replace(context(), probe=None)
    result = build("until_flat", max_steps=4, doublings=2).attack(released("llama"), where)
    assert [run["steps"] for run in result.report["runs"]][:2] == [4, 8]
    assert result.training.trajectory == []


def test_one_run_is_full_fine_tuning() -> None:
    from harness.models.digest import weights_digest

    once = build("until_flat", doublings=0).attack(released("llama"), context())
    plain = build("full").attack(released("llama"), context())
    assert weights_digest(once.model) == weights_digest(plain.model)


def locked_by(lock: str) -> Released:
    """A small model with the lock, as its release names it."""
    if lock == "pmp":
        return pmp_cases.release(pmp_cases.locked())
    model = released("dlr_llama") if lock == "dlr" else released(lock_like_specdef(random_llama()))
    return dataclasses.replace(model, lock={"defense": lock, "settings": {"k": 2} if lock == "specdef" else {}})


@pytest.mark.parametrize(("lock", "attack"), [
    ("dlr", "redistill"), ("specdef", "undo_specdef"), ("specdef_reparam", "undo_specdef_reparam"), ("pmp", "undo_pmp"),
])  # fmt: skip
def test_the_undo_of_the_lock_is_what_is_run_for_longer_and_it_is_paid_once(lock: str, attack: str) -> None:
    once, where = context(), context()
    build("undo_until_flat", max_steps=4, doublings=0).attack(locked_by(lock), once)
    result = build("undo_until_flat", max_steps=4, doublings=2, flat=1e-9).attack(locked_by(lock), where)
    assert result.report["attack"] == attack
    assert "DLRNet" not in {type(module).__name__ for module in result.model.modules()}
    lengths = [run["steps"] for run in result.report["runs"]]
    assert lengths == [4, 8, 16][: len(lengths)]
    assert len(lengths) > 1
    assert where.meter.bills["attack"].steps == sum(lengths)
    for key in ("steps", "tokens", "flops"):
        paid = getattr(where.meter.bills["undo"], key)
        assert paid == getattr(once.meter.bills["undo"], key)
        assert paid or key != "flops"
    assert (result.guess is None) == (lock != "pmp")


@pytest.mark.parametrize(("lock", "attack"), [
    (None, "full"), ("none", "full"), ("external", "undo_specdef"), ("dlr", "redistill"), ("pmp", "undo_pmp"),
    ("dlr+specdef_reparam", "undo_all"), ("specdef+external", "undo_specdef"),
])  # fmt: skip
def test_what_undoes_a_lock_is_read_off_the_suite(lock: str | None, attack: str) -> None:
    found = dataclasses.replace(released("llama"), lock=lock and {"defense": lock, "settings": {}})
    assert undo_of(found, 0) == attack


def test_what_undoes_a_lock_of_another_name_is_read_off_the_model() -> None:
    from defenses.dlr.modeling_dlr import DLRNet

    class Renamed(DLRNet):
        """As a lock's author may call his own."""

    def external(model: Any) -> Released:
        found = model if isinstance(model, Released) else released(model)
        return dataclasses.replace(found, lock={"defense": "external", "settings": {}})

    nets = external(released("dlr_llama"))
    for module in nets.model.modules():
        if type(module) is DLRNet:
            module.__class__ = Renamed
    assert undo_of(nets, 0) == "redistill"
    assert undo_of(external(lock_like_specdef(random_llama())), 0) == "undo_specdef_reparam"
    result = build("undo_until_flat", max_steps=2, doublings=0).attack(nets, context())
    assert result.report["replaced"]


def test_without_a_lock_it_is_until_flat() -> None:
    from harness.models.digest import weights_digest

    knobs: dict[str, Any] = {"max_steps": 3, "doublings": 1, "learning_rate": 1e-3}
    runs = [build(name, **knobs).attack(released("llama"), context()) for name in ("until_flat", "undo_until_flat")]
    assert len({weights_digest(run.model) for run in runs}) == 1
    assert runs[0].report == runs[1].report


def test_trials_of_a_search_make_one_run() -> None:
    assert build("until_flat", learning_rate=7e-4).tried() == {"name": "full", **build("full", learning_rate=7e-4)
                                                               .settings.model_dump()}  # fmt: skip
    tried = build("undo_until_flat", max_steps=9, doublings=3).tried()
    assert (tried["name"], tried["max_steps"], tried["doublings"]) == ("undo_until_flat", 9, 0)


@pytest.mark.parametrize(("name", "steps"), [("full", 50), ("until_flat", 100), ("undo_until_flat", 100)])
def test_a_search_that_liked_a_short_run_does_not_halve_all_runs(name: str, steps: int) -> None:
    kind = registry.attacks().get(name)
    best = Trial(number=0, outcome="complete", params={"learning_rate": 3e-4, "max_steps": 50}, score=1.0, bill=Bill())
    given = {"name": name, "learning_rate": 2e-3, "max_steps": 100}
    assert curve([best], given, kind.as_given).attack == {"name": name, "learning_rate": 3e-4, "max_steps": steps}
