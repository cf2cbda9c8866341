"""Private Mask Pre-Training (PMP): a model pretrained so that only a secret part of its weights was ever trained."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from harness.plugins import Defense, LockContext, Locked, Released
from harness.settings import Settings
from harness.train_settings import TrainSettings


class PMPSettings(TrainSettings):
    """The pretraining, under TrainingArguments' names, and how the mask is found; reasons in docs/locks/pmp.md."""

    learning_rate: float = Field(4e-3, gt=0)
    """Peak learning rate, of mask discovery too."""
    max_steps: int = Field(500, gt=0)
    """Optimizer steps of pretraining."""
    block_size: int = Field(256, gt=1)
    """Tokens a sequence; documents are packed without padding."""
    weight_decay: float = Field(0.1, ge=0)
    """Decoupled weight decay; in variant `paper` the complement is not decayed."""
    adam_beta2: float = Field(0.95, ge=0, lt=1)
    """Second AdamW beta."""
    eval_points: Literal[0] = 0
    """Nothing is scored during pretraining."""
    variant: Literal["paper", "authors_code"] = "paper"
    """`paper`: |gradient| averaged over batches, linear layers only, complement frozen at its initial values;
    `authors_code`: |gradient| of the last batch, all parameters, complement projected to a small ball."""
    rho: float = Field(0.5, gt=0, lt=1)
    """Fraction of the masked tensors' entries that is trained (the ticket)."""
    discovery_steps: int = Field(100, gt=0)
    """Most steps of mask discovery; the weights are rewound afterwards."""
    mask_distance: float = Field(0.01, ge=0, le=1)
    """Consecutive masks closer than this (1 - intersection over union) count as equal."""
    mask_patience: int = Field(5, gt=0)
    """Discovery ends after so many equal masks in a row."""
    radius: float = Field(2.0, gt=0)
    """`authors_code` only: L2 norm to which the whole complement is projected."""
    project_every: int = Field(20, gt=0)
    """`authors_code` only: steps between projections."""


class PMPLock(Defense):
    """Private Mask Pre-Training: pretrains the base's architecture on a secret part of the weights only."""

    Settings: ClassVar[type[Settings]] = PMPSettings
    pretrains: ClassVar[bool] = True
    settings: PMPSettings

    def lock(self, base: Released, context: LockContext) -> Locked:
        """Pretrain the architecture of `base` from scratch with a private mask; the mask is the secret.

        Raises:
            UsageError: the model has no linear layers, or the corpus no text.
        """
        from defenses.pmp.pretrain import pretrain_masked

        return pretrain_masked(base, self.settings, context)

    def control(self, base: Released, context: LockContext) -> Locked:
        """The same pretraining without a mask: same architecture, initial weights, tokens and order.

        Raises:
            UsageError: the corpus has no text.
        """
        from defenses.pmp.pretrain import pretrain_dense

        return pretrain_dense(base, self.settings, context)

    def control_settings(self) -> dict[str, Any]:
        """Those of the pretraining: locks that differ in their masks only share a control."""
        return self.settings.model_dump(mode="json", include=set(TrainSettings.model_fields))

    def compare(self, guess: dict[str, Any], secret: dict[str, Any]) -> dict[str, float]:
        """Intersection over union of a guessed mask with the secret one; see `defenses.pmp.mask`."""
        from defenses.pmp.mask import compare

        return compare(guess, secret)


__all__: list[Any] = ["PMPLock", "PMPSettings"]
