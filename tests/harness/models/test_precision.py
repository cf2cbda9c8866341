"""bf16 is taken where it pays and changes nothing; a lock that it would break is attacked in fp32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attack_cases import lock_like_specdef, random_gpt2

from harness import probes, stock
from harness.cache import Cache
from harness.models.precision import survives_bf16
from harness.progress import Progress
from harness.spec import Spec
from harness.testing import random_llama
from harness.workshop import Workshop


def broken() -> Any:
    return lock_like_specdef(random_llama())


@pytest.mark.parametrize(("make", "survives"), [(random_llama, True), (random_gpt2, True), (broken, False)])
def test_what_rounding_breaks(make: Any, survives: bool) -> None:
    model = make().train()
    assert survives_bf16(model) is survives
    assert model.training


@pytest.mark.parametrize(("precision", "make", "taken"), [
    ("auto", random_llama, True), ("auto", broken, False), ("bf16", broken, True), ("fp32", random_llama, False),
])  # fmt: skip
def test_precision_auto_looks_at_the_model(
    precision: str, make: Any, taken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "check", lambda requirement: None)
    monkeypatch.setattr(stock, "BF16_PAYS_FROM", 0)
    spec = Spec.model_construct(precision=precision)
    assert Workshop(cache=Cache(tmp_path), data_dir=None, progress=Progress(quiet=True)).bf16(spec, make()) is taken
