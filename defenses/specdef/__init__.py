"""SpecDef, spectral deformation (workshop 2025, Algorithm 1); see docs/locks/specdef.md."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from harness.kinds import KINDS, Kind
from harness.plugins import Defense, LockContext, Locked, Released
from harness.settings import Settings
from harness.train_settings import TrainSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class SpecDefSettings(TrainSettings):
    """The loss `alpha * retain - (1 - alpha) * mean of the top-k singular values`, and how it is trained."""

    alpha: float = Field(0.5, ge=0, le=1)
    """Weight of the retain loss; 1 - alpha is that of the singular values."""
    k: int = Field(2, ge=1)
    """Singular values a matrix that are inflated."""
    retain: Literal["task", "kl", "both"] = "kl"
    """`task`: next-token loss on the lock's corpus, or a classifier's loss on its own task; `kl`: KL(base, locked) on
    the same; `both`: their sum."""
    iterations: int = Field(1, ge=1)
    """Rounds of block power iteration a step."""
    learning_rate: float = Field(3e-3, gt=0)
    """Peak learning rate."""
    max_steps: int = Field(300, gt=0)
    """Optimizer steps."""
    per_device_train_batch_size: int = Field(4, gt=0)
    """Sequences a micro-batch."""


class SpecDef(Defense):
    """SpecDef (workshop 2025): the top singular values of every matrix are inflated, so that training crawls."""

    kinds: ClassVar[tuple[Kind, ...]] = KINDS
    Settings: ClassVar[type[Settings]] = SpecDefSettings
    settings: SpecDefSettings

    def lock(self, base: Released, context: LockContext) -> Locked:
        """Train `base.model` (in place) on Algorithm 1's loss."""
        if context.own is not None:
            from defenses.specdef import classifier

            return classifier.lock(base, context.own, self.settings, context)
        from defenses.specdef.lock import lock

        return lock(base, self.settings, context)

    def export(self, locked: PreTrainedModel, folder: Path) -> None:
        """Write the model card."""
        from defenses.specdef.card import export

        export(locked, folder)


__all__: list[Any] = ["SpecDef", "SpecDefSettings"]
