"""`undo_specdef`: undo SpecDef, then fine-tune.

The inflated singular values are brought down, a short distillation from the locked model repairs what that broke, and
every parameter is fine-tuned. How many values a matrix has that are inflated is read in the release's config, or where
that names no SpecDef, off the released weights. Spectra, sampling and distillation are on the bill `undo`. On a model
whose release names no SpecDef and whose spectra look undeformed this is plain full fine-tuning, so the reference is
fair.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

from pydantic import Field

from attacks.full import UndoneSettings
from harness.kinds import KINDS, Kind
from harness.plugins import Attack, AttackContext, Attacked, Knowledge, Released


class UndoSpecDefSettings(UndoneSettings):
    """`full`'s settings for the fine-tuning, and how the lock is undone before."""

    repair: Literal["clip", "rescale", "none"] = "clip"
    """What happens to outlying singular values: `clip`, each comes down to the largest that is not outlying; `rescale`,
    all by the one factor that brings the largest there; `none`, nothing, and no distillation either: this is `full`."""
    k: int | None = Field(None, ge=1)
    """Values of every matrix that are inflated; null reads it in the release's config, and where that names no SpecDef,
    outlying values are looked for by the next two."""
    outlier_ratio: float = Field(1.5, gt=1)
    """A singular value this many times the next one is outlying, and so are those above it. A model whose median matrix
    has no such gap counts as undeformed and is left alone."""
    outliers: int = Field(8, ge=1)
    """Most outlying values looked for in a matrix."""
    distil_steps: int = Field(150, ge=0)
    """Steps of KL to the locked model after the repair, every parameter trained; 0 is no distillation."""
    distil_learning_rate: float = Field(3e-3, gt=0)
    """Peak learning rate of the distillation (cosine)."""
    distil_optim: Literal["muon", "adamw_torch"] = "adamw_torch"
    """Optimizer of the distillation."""
    distil_batch_size: int = Field(8, gt=0)
    """Sequences a step of the distillation; a classifier's has the batches of the fine-tuning."""
    sampled_tokens: int = Field(16384, ge=0)
    """Tokens sampled from the locked model; where there are enough, they are half of what is distilled on."""


class UndoSpecDef(Attack):
    """Clip the outlying singular values, distil the locked model's function back, then fine-tune everything."""

    kinds: ClassVar[tuple[Kind, ...]] = KINDS
    knowledge = Knowledge.CODE
    Settings = UndoSpecDefSettings
    settings: UndoSpecDefSettings

    def attack(self, released: Released, context: AttackContext) -> Attacked:
        """See `harness.plugins.Attack`."""
        from attacks.common import undo_then_finetune
        from attacks.spectral_repair import inflated_values, undo

        return undo_then_finetune(released, context, self.settings, partial(undo, known=inflated_values(released)))
