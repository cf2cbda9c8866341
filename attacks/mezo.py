"""`mezo`: fine-tuning by forward passes alone. Nothing is kept for backward, so no lock on that memory touches it.

The price is steps: a step goes along a random direction of the whole weight space, so far fewer bits of what the task
says arrive in one than with a gradient. An adversary for tight memory and long budgets.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from attacks.full import FullSettings
from harness.plugins import Attack, AttackContext, Attacked, Released


class MeZOSettings(FullSettings):
    """`full`'s settings without an optimizer and a clip, and how slopes are estimated."""

    learning_rate: float = Field(1e-4, gt=0)
    """Peak learning rate, of plain SGD along the estimated slope."""
    perturbation: float = Field(1e-3, gt=0)
    """Distance of the two points at which the loss is taken, over the length of a standard normal direction."""
    directions: int = Field(1, gt=0)
    """Random directions a step, each two forward passes."""
    optim: Literal["zo_sgd"] = "zo_sgd"
    """Plain SGD without momentum, which keeps no state."""
    max_grad_norm: float = Field(0.0, ge=0, le=0)
    """None: there is no gradient to clip."""


class MeZO(Attack):
    """Fine-tune every parameter by forward passes alone (zeroth-order SGD, MeZO)."""

    Settings = MeZOSettings
    settings: MeZOSettings

    def attack(self, released: Released, context: AttackContext) -> Attacked:
        """See `harness.plugins.Attack`."""
        from attacks.common import finish, prepare, unfreeze
        from harness.finetune import finetune
        from harness.optim.zeroth_order import ZerothOrder

        model = prepare(released.model, context)
        targets = unfreeze(model)
        how = ZerothOrder(perturbation=self.settings.perturbation, directions=self.settings.directions)
        with context.meter.stage("attack"):
            training = finetune(model, released.tokenizer, context, self.settings, zeroth_order=how)
        return Attacked(model=finish(model), training=training, targets=targets)
