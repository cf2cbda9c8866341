"""`redistill`: undo DLR-Lock, then fine-tune.

Forward passes through the locked model teach a shallow MLP to each DLR-Net. Nothing is ever differentiated through a
DLR-Net, so its depth costs the adversary no memory. The fitting, the sampling and the closed-form solutions are on the
bill `undo`. On a model without DLR-Nets this is plain full fine-tuning, so the reference is fair.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from attacks.full import FullSettings
from harness.plugins import Attack, AttackContext, Attacked, Knowledge, Released


class RedistillSettings(FullSettings):
    """`full`'s settings for the fine-tuning, and how the lock is undone before."""

    learning_rate: float = Field(5e-3, gt=0)
    """Peak learning rate of the fine-tuning."""
    undo_steps: int = Field(200, ge=0)
    """Optimizer steps of fitting the shallow MLPs, all layers side by side; 0 leaves the closed-form start."""
    undo_learning_rate: float = Field(3e-2, gt=0)
    """Peak learning rate of the fitting (cosine, warm-up as in the fine-tuning)."""
    undo_optim: Literal["muon", "adamw_torch"] = "muon"
    """Optimizer of the fitting and the polish."""
    undo_batch_size: int = Field(8, gt=0)
    """Sequences a step of the fitting and the polish."""
    sampled_tokens: int = Field(16384, ge=0)
    """Tokens sampled from the locked model and added to the task's text, so that the MLPs are right elsewhere too."""
    hidden_size: int | None = Field(None, gt=0)
    """Hidden width of the shallow MLPs; null is the base's, as the config says it."""
    polish_steps: int = Field(0, ge=0)
    """Steps of end-to-end KL to the locked model, shallow MLPs only, after they are swapped in."""
    polish_learning_rate: float = Field(3e-3, gt=0)
    """Peak learning rate of the polish."""


class Redistill(Attack):
    """Replace each DLR-Net by a shallow SwiGLU MLP fitted with forward passes only, then fine-tune everything."""

    knowledge = Knowledge.CODE
    Settings = RedistillSettings
    settings: RedistillSettings

    def attack(self, released: Released, context: AttackContext) -> Attacked:
        """See `harness.plugins.Attack`."""
        from attacks.common import undo_then_finetune
        from attacks.undo_dlr import undo

        return undo_then_finetune(released, context, self.settings, undo)
