"""`relative`: full fine-tuning whose steps are relative to the size of each tensor.

The same function can be written with any tensor a thousand times larger and another a thousand times smaller (a norm's
gain and the layer after it, a whole residual stream). Whoever takes steps of one size in all tensors then ruins the
small ones or never moves the large ones, and a release that was only rescaled looks like a lock. Steps in proportion to
a tensor's root mean square are blind to that (Adafactor's `scale_parameter`, Shazeer and Stern 2018, section 8).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from attacks.full import FullSettings
from harness.kinds import KINDS, Kind
from harness.plugins import Attack, AttackContext, Attacked, Released

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OF_ZEROS = 1e-3
"""A tensor of zeros, as a bias may be, moves as if it were so large (Adafactor's second epsilon)."""


class RelativeSettings(FullSettings):
    """`full`'s settings."""

    learning_rate: float = Field(2e-2, gt=0)
    """Peak step as a share of a tensor's root mean square."""


class Relative(Attack):
    """Fine-tune every parameter with steps relative to the size of its tensor."""

    kinds: ClassVar[tuple[Kind, ...]] = KINDS
    Settings = RelativeSettings
    settings: RelativeSettings

    def attack(self, released: Released, context: AttackContext) -> Attacked:
        """See `harness.plugins.Attack`."""
        from attacks.common import finetune_scaled, finish, prepare, unfreeze

        model = prepare(released.model, context)
        targets = unfreeze(model)
        sizes = root_mean_squares(model)
        training = finetune_scaled(model, released.tokenizer, context, self.settings, sizes)
        ends = {"smallest": min(sizes.values()), "largest": max(sizes.values())}
        return Attacked(model=finish(model), training=training, targets=targets, report=ends)


def root_mean_squares(model: PreTrainedModel) -> dict[str, float]:
    """Of every trained tensor, by name."""
    return {name: float(parameter.detach().double().square().mean().sqrt()) or OF_ZEROS
            for name, parameter in model.named_parameters() if parameter.requires_grad}  # fmt: skip
