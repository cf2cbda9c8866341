"""The story of DLR-Lock: full fine-tuning no longer fits, and the adversaries who know better fit."""

from __future__ import annotations

import pytest
from attack_cases import build, context, lock_like_dlr, released

from harness.errors import OutOfMemory
from harness.testing import random_llama

SMALL = {"max_steps": 3, "per_device_train_batch_size": 8, "block_size": 64}


def base() -> object:
    return random_llama(hidden_size=64, intermediate_size=192, num_hidden_layers=4)


def peak(name: str, model: object, budget: str = "") -> int:
    where = context(budget=budget)
    extra = {"undo_steps": 5} if name == "redistill" else {}
    build(name, **SMALL, **extra).attack(released(model), where)
    found = where.meter.total.peak_device_bytes
    assert found is not None
    return found


def test_between_the_two_needs_only_those_who_know_the_lock_complete() -> None:
    needs_base, needs_locked = peak("full", base()), peak("full", lock_like_dlr(base(), depth=32))
    assert needs_locked > 1.5 * needs_base
    cap = f"memory={int(1.1 * needs_base)}"
    assert peak("full", base(), cap) <= 1.1 * needs_base
    for name in ("full", "full_trainer"):
        with pytest.raises(OutOfMemory, match=r"budget\.memory"):
            peak(name, lock_like_dlr(base(), depth=32), cap)
    for name in ("checkpointing", "redistill"):
        assert peak(name, lock_like_dlr(base(), depth=32), cap) <= 1.1 * needs_base
