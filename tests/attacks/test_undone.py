"""Trials of one search undo a lock once: model, report and bill are as if each had, and nothing stale is used."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from attack_cases import build, context, released

from harness.models.digest import weights_digest
from harness.plugins import AttackContext
from harness.search.undone import Noted, Result, Undoing, Undone
from harness.settings import Settings
from harness.train_settings import TrainSettings

CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "redistill": ("dlr_llama", {"undo_steps": 5}, {"undo_steps": 6}),
    "distil_student": ("dlr_llama", {"distil_steps": 5}, {"distil_learning_rate": 1e-3}),
    "pretrain_first": ("llama", {"pretrain_steps": 5}, {"adam_beta1": 0.5}),
    "undo_specdef": ("llama", {"outlier_ratio": 1.0001, "distil_steps": 5}, {"block_size": 64}),
}
"""By attack: a model, settings under which it finds a lock there, and one that its undoing depends on."""
TRIALS: tuple[dict[str, Any], ...] = (
    {"learning_rate": 1e-3},
    {"learning_rate": 3e-3},
    {"learning_rate": 1e-2, "optim": "sgd", "lr_scheduler_type": "linear", "warmup_ratio": 0.2},
    {"per_device_train_batch_size": 2, "max_steps": 4},
)


class Counting(Undone):
    """Counts what it makes."""

    made = 0

    def _make(self, undoing: Undoing, settings: Settings, context: AttackContext) -> Result:
        self.made += 1
        return super()._make(undoing, settings, context)


def outcome(attack: str, model: str, settings: dict[str, Any], undone: Undone | None) -> tuple[Any, ...]:
    """All that a trial gives, but for seconds and the host's memory."""
    where = dataclasses.replace(context(), undone=undone)
    result = build(attack, **settings).attack(released(model), where)
    bills = {stage: bill.model_copy(update={"seconds": 0.0, "peak_host_bytes": None})
             for stage, bill in where.meter.bills.items()}  # fmt: skip
    assert bills["undo"].steps == settings.get("undo_steps", 5)
    return weights_digest(result.model), result.report, result.training.losses, list(result.targets), bills


@pytest.mark.parametrize("attack", CASES)
def test_a_trial_is_the_same_whether_it_undid_the_lock_itself_or_not(attack: str) -> None:
    model, settings, _ = CASES[attack]
    undone = Counting()
    for trial in TRIALS:
        chosen = {**settings, **trial}
        assert outcome(attack, model, chosen, undone) == outcome(attack, model, chosen, None)
    assert undone.made == (3 if attack == "pretrain_first" else 1)  # which pretrains as it fine-tunes, but for the rate


@pytest.mark.parametrize("attack", CASES)
def test_other_settings_of_the_undoing_are_undone_anew(attack: str) -> None:
    model, settings, other = CASES[attack]
    undone = Counting()
    for chosen in (settings, {**settings, **other}, settings):
        assert outcome(attack, model, chosen, undone) == outcome(attack, model, chosen, None)
    assert undone.made == 3


def test_what_costs_nothing_is_not_kept() -> None:
    undone = Counting()
    for _ in range(2):
        where = dataclasses.replace(context(), undone=undone)
        build("redistill").attack(released("llama"), where)
        assert "undo" not in where.meter.bills
    assert undone.made == 2


def test_an_attack_that_undoes_twice_in_one_go_is_a_fault() -> None:
    where = dataclasses.replace(context(), undone=Undone())

    def undoing(settings: Any) -> Result:
        with where.meter.stage("undo"):
            return released("llama").model, {"read": settings.block_size}

    where.undo(undoing, TrainSettings())
    with pytest.raises(RuntimeError, match="once"):
        where.undo(undoing, TrainSettings(block_size=7))


def test_what_a_failed_undoing_left_is_not_used() -> None:
    undone = Counting()

    def undoing(settings: Any) -> Result:
        assert settings.max_steps
        raise torch.OutOfMemoryError

    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            undone.get(undoing, TrainSettings(), context())
    assert undone.made == 2


def test_settings_note_what_is_asked_of_them() -> None:
    noted = Noted(TrainSettings(max_steps=7))
    assert (noted.max_steps, noted.block_size) == (7, 128)
    assert noted.read == {"max_steps": 7, "block_size": 128}
    assert noted.model_copy(update={"max_steps": 3}).max_steps == 3
    assert noted.read == TrainSettings(max_steps=7).model_dump()
    with pytest.raises(AttributeError):
        _ = noted.no_such_setting
