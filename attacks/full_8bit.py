"""`full_8bit`: full fine-tuning with AdamW states in 8 bits (bitsandbytes)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from attacks.full import FullFineTuning, FullSettings
from harness.plugins import AttackContext, Attacked, Released


class EightBitSettings(FullSettings):
    """`full`'s settings with bitsandbytes' block-wise 8-bit AdamW."""

    learning_rate: float = Field(3e-3, gt=0)
    """Peak learning rate."""
    optim: Literal["adamw_8bit"] = "adamw_8bit"
    """Optimizer: the one that this attack is about."""


class EightBitFineTuning(FullFineTuning):
    """Fine-tune every parameter with AdamW states in 8 bits (bitsandbytes)."""

    Settings = EightBitSettings
    requires = ("bitsandbytes",)

    def attack(self, released: Released, context: AttackContext) -> Attacked:
        """See `harness.plugins.Attack`."""
        from attacks.common import eagerly

        with eagerly():
            return super().attack(released, context)
