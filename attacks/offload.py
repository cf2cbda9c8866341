"""`offload`: full fine-tuning under DeepSpeed ZeRO with optimizer states, and at stage 3 parameters, in host memory.

On a machine without a GPU the same engine runs with its CPU accelerator: nothing is saved there, but the path is real.
"""

from __future__ import annotations

from typing import Literal

from attacks.full import FullSettings
from harness.plugins import Attack, AttackContext, Attacked, Released


class OffloadSettings(FullSettings):
    """`full`'s settings, and the ZeRO stage."""

    zero_stage: Literal[2, 3] = 2
    """2 offloads gradients and optimizer states, 3 also parameters."""
    optim: Literal["adamw_torch"] = "adamw_torch"
    """Optimizer; DeepSpeed runs AdamW on the host."""
    save_steps: Literal[0] = 0
    """Resuming is not supported under DeepSpeed; a killed run starts again."""


class Offload(Attack):
    """Full fine-tuning with DeepSpeed ZeRO-2 or ZeRO-3 and CPU offload."""

    Settings = OffloadSettings
    settings: OffloadSettings
    requires = ("deepspeed",)
    distributed = True

    def attack(self, released: Released, context: AttackContext) -> Attacked:
        """See `harness.plugins.Attack`."""
        from attacks.common import finish, prepare, unfreeze
        from harness.finetune import finetune
        from harness.loop.deepspeed_engine import zero_config

        model = prepare(released.model, context, device="cpu")  # the engine takes to the device what ZeRO keeps there
        targets = unfreeze(model)
        config = zero_config(self.settings.zero_stage, offload_param=self.settings.zero_stage == 3)
        with context.meter.stage("attack"):
            training = finetune(model, released.tokenizer, context, self.settings, deepspeed=config)
        report = {"zero_stage": self.settings.zero_stage}
        return Attacked(model=finish(model), training=training, targets=targets, report=report)  # in host memory still
