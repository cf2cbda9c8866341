"""`full_trainer`: the same full fine-tuning by a stock transformers.Trainer, a second implementation that must agree.

It sees the same blocks in the same order with the same settings, so its losses follow `full`'s up to rounding
(tests/attacks/test_full_trainer.py states the tolerance). Steps are the Trainer's; only the counting is ours.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from attacks.full import FullSettings
from harness.plugins import Attack, AttackContext, Attacked, Released


class TrainerSettings(FullSettings):
    """`full`'s settings, restricted to what both implementations mean the same by."""

    optim: Literal["adamw_torch"] = "adamw_torch"
    """Optimizer, torch's AdamW in both."""
    weight_decay: float = Field(0.0, ge=0, le=0)
    """None: the Trainer spares biases and norms, the other loop spares nothing."""
    save_steps: Literal[0] = 0
    """Resumable checkpoints are the other loop's; here a killed run starts again."""


class TrainerFineTuning(Attack):
    """Full fine-tuning by a stock transformers.Trainer, which must agree with `full`."""

    Settings = TrainerSettings
    settings: TrainerSettings

    def attack(self, released: Released, context: AttackContext) -> Attacked:
        """See `harness.plugins.Attack`."""
        from attacks.common import finish, prepare, unfreeze
        from attacks.trainer_bridge import train_by_trainer
        from harness.finetune import task_batches

        model = prepare(released.model, context)
        targets = unfreeze(model)
        with context.meter.stage("attack"):
            batches = task_batches(released.tokenizer, context, self.settings)
            training = train_by_trainer(model, batches, self.settings, context)
        return Attacked(model=finish(model), training=training, targets=targets)
