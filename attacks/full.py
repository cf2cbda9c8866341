"""`full`: every parameter trains. The plain adversary that every lock claims to stop."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from harness.kinds import KINDS, Kind
from harness.plugins import Attack, AttackContext, Attacked, Released
from harness.train_settings import TrainSettings


class FullSettings(TrainSettings):
    """Training knobs with the rate that a sweep found best on a locked model (docs/attacks/README.md)."""

    learning_rate: float = Field(2e-3, gt=0)
    """Peak learning rate."""


class UndoneSettings(FullSettings):
    """`full`'s settings for a model whose lock has been undone: the rate that the sweep found best on the base."""

    learning_rate: float = Field(3e-3, gt=0)
    """Peak learning rate."""


class FullFineTuning(Attack):
    """Fine-tune every parameter with AdamW."""

    kinds: ClassVar[tuple[Kind, ...]] = KINDS
    Settings = FullSettings
    settings: FullSettings

    def attack(self, released: Released, context: AttackContext) -> Attacked:
        """See `harness.plugins.Attack`."""
        from attacks.common import finetune_chosen, prepare

        return finetune_chosen(prepare(released.model, context), released, context, self.settings)
