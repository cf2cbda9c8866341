"""`linear_probe`: only the classifier's head trains, on the features of the released model as they are."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from attacks.full import FullSettings
from harness.kinds import CLASSIFIERS, Kind
from harness.plugins import Attack, AttackContext, Attacked, Released


class LinearProbeSettings(FullSettings):
    """`full`'s settings at a rate for a single layer."""

    learning_rate: float = Field(2e-2, gt=0)
    """Peak learning rate."""


class LinearProbe(Attack):
    """Train only the head of a classifier; the body stays as released."""

    kinds: ClassVar[tuple[Kind, ...]] = CLASSIFIERS
    Settings = LinearProbeSettings
    settings: LinearProbeSettings

    def attack(self, released: Released, context: AttackContext) -> Attacked:
        """See `harness.plugins.Attack`."""
        from attacks.common import finetune_chosen, prepare
        from harness.models.heads import head_name

        model = prepare(released.model, context)
        head = head_name(model)
        return finetune_chosen(model, released, context, self.settings, lambda name: name.startswith(f"{head}."),
                               {"head": head})  # fmt: skip
