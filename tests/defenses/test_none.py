"""The control changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from defenses.none import NoDefense, NoDefenseSettings
from harness.meters.meter import Meter
from harness.models.digest import weights_digest
from harness.plugins import LockContext


def test_base_comes_back_unchanged(tiny_llama: Any, tmp_path: Path) -> None:
    context = LockContext(seed=0, device="cpu", folder=tmp_path, meter=Meter(), corpus=lambda split: ["text"])
    before = weights_digest(tiny_llama.model)
    locked = NoDefense(NoDefenseSettings()).lock(tiny_llama, context)
    assert locked.model is tiny_llama.model
    assert weights_digest(locked.model) == before
    assert locked.secret is None
