"""`offload`: full fine-tuning under DeepSpeed ZeRO with optimizer states, and at stage 3 parameters, in host memory.

On a machine without a GPU the same engine runs with its CPU accelerator: nothing is saved there, but the path is real.
"""

from __future__ import annotations

from typing import Any, Literal

from harness.plugins import Attack, AttackContext, Attacked, Released
from harness.train_settings import TrainSettings


class OffloadSettings(TrainSettings):
    """`full`'s settings, and the ZeRO stage."""

    zero_stage: Literal[2, 3] = 2
    """2 offloads gradients and optimizer states, 3 also parameters."""


class Offload(Attack):
    """Full fine-tuning with DeepSpeed ZeRO-2 or ZeRO-3 and CPU offload."""

    Settings = OffloadSettings
    settings: OffloadSettings
    requires = ("deepspeed",)

    def attack(self, released: Released, context: AttackContext) -> Attacked:
        """See `harness.plugins.Attack`."""
        from attacks.common import finish, prepare, unfreeze
        from harness.finetune import finetune

        model = prepare(released.model, context)
        targets = unfreeze(model)
        with context.meter.stage("attack"):
            training = finetune(model, released.tokenizer, context, self.settings,
                                deepspeed=zero_config(self.settings.zero_stage))  # fmt: skip
        return Attacked(model=finish(model), training=training, targets=targets,
                        report={"zero_stage": self.settings.zero_stage})  # fmt: skip


def zero_config(stage: int) -> dict[str, Any]:
    """DeepSpeed's configuration; batch sizes, precision and clipping are the loop's, from the settings."""
    zero: dict[str, Any] = {"stage": stage, "offload_optimizer": {"device": "cpu"}}
    if stage == 3:
        zero["offload_param"] = {"device": "cpu"}
    return {"zero_optimization": zero, "zero_allow_untested_optimizer": True}
