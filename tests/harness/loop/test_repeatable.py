"""Kernels that repeat their bits, wherever there are such."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training_cases import SETTINGS, batches, context, same

from harness.loop.reproducible import reproducible, strictly
from harness.loop.run import Run
from harness.testing import random_llama
from harness.training import causal_lm_loss, train


def unrepeatable() -> None:
    """An operation for which torch has no deterministic kernel."""
    torch.zeros(4).put_(torch.tensor([0]), torch.ones(1))


def test_strictly_refuses_what_cannot_repeat_and_only_inside() -> None:
    with reproducible(0):
        unrepeatable()
        with pytest.raises(RuntimeError, match="deterministic implementation"), strictly(True):
            unrepeatable()
        with strictly(False):
            unrepeatable()
        unrepeatable()
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("repeats", [True, False])
def test_training_is_strict_until_an_operation_has_no_kernel_that_repeats(
    repeats: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    real = Run.__init__

    def strict(self: Run, *args: object, **options: object) -> None:
        real(self, *args, **options)  # type: ignore[arg-type]
        self._strict = True

    def loss(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        seen.append(not torch.is_deterministic_algorithms_warn_only_enabled())
        if not repeats:
            unrepeatable()
        return causal_lm_loss(model, batch)

    plain, other = random_llama(), random_llama()
    train(plain, batches(), SETTINGS, context(tmp_path / "plain"))
    monkeypatch.setattr(Run, "__init__", strict)
    result = train(other, batches(), SETTINGS, context(tmp_path / "other"), loss_fn=loss)
    assert seen == ([True] * 8 if repeats else [True, *[False] * 8])
    assert same(plain, other)  # the micro-batch that was begun twice counts once
    assert result.steps == 8
