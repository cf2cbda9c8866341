"""Several locks on one model are taken out one after the other, the last one first, and all of it is on the bill."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from attack_cases import LAYERS, build, context, lock_like_dlr, lock_like_specdef, released

from attacks.linear_pairs import find_chains
from harness.models.digest import weights_digest
from harness.testing import random_llama

ATTENTION = LAYERS[1:]
"""DLR-Lock has taken the place of the MLPs."""
NAMES = "dlr+specdef_reparam"


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    from attacks import redistill

    kind = redistill.RedistillSettings
    monkeypatch.setattr(redistill, "RedistillSettings", lambda: kind(undo_steps=8, sampled_tokens=0))


def locked() -> Any:
    model = lock_like_specdef(lock_like_dlr(random_llama()), ATTENTION)
    return dataclasses.replace(released(model), lock={"defense": NAMES, "settings": {}})


def nets(model: Any) -> int:
    return sum(type(module).__name__ == "DLRNet" for module in model.modules())


def test_every_lock_is_taken_out_the_last_one_first() -> None:
    where, target = context(), locked()
    assert nets(target.model) == 2
    assert len(find_chains(target.model, torch.arange(3, 27).view(2, 12))) == len(ATTENTION)
    result = build("undo_all", max_steps=2).attack(target, where)
    assert list(result.report) == ["specdef_reparam", "dlr"]
    assert sorted(result.report["specdef_reparam"]["merged"]) == sorted(ATTENTION)
    assert nets(result.model) == 0
    assert find_chains(result.model, torch.arange(3, 27).view(2, 12)) == []
    assert where.meter.bills["undo"].steps == 8
    assert where.meter.bills["attack"].steps == 2


def test_one_undo_leaves_the_other_lock_in() -> None:
    assert nets(build("undo_specdef_reparam", max_steps=1).attack(locked(), context()).model) == 2
    assert "specdef_reparam" not in build("redistill", max_steps=1, undo_steps=2).attack(locked(), context()).report


def test_longer_and_longer_takes_all_of_them_out_once() -> None:
    where = context()
    result = build("undo_until_flat", max_steps=2, doublings=1, flat=1e-9).attack(locked(), where)
    assert result.report["attack"] == "undo_all"
    assert nets(result.model) == 0
    assert where.meter.bills["undo"].steps == 8


@pytest.mark.parametrize("lock", [None, {"defense": "pmp", "settings": {}}, {"defense": "external", "settings": {}}])
def test_where_nothing_is_to_be_taken_out_it_is_full_fine_tuning(lock: Any) -> None:
    plain = build("full", learning_rate=3e-3).attack(released("llama"), context()).model
    where = context()
    result = build("undo_all", learning_rate=3e-3).attack(dataclasses.replace(released("llama"), lock=lock), where)
    assert (result.report, set(where.meter.bills)) == ({}, {"attack"})
    assert weights_digest(result.model) == weights_digest(plain)
