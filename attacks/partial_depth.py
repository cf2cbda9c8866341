"""`partial_depth`: only the first or the last part of the depth trains (and a classifier's head); the rest is frozen.

Two depths can be cut: the decoder's (`layers`), and that of the deep modules that a lock put into a layer (`blocks`).
Training the last layers alone, backward ends where they begin, so nothing below is kept, whatever a lock put there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from attacks.full import FullSettings
from harness.kinds import KINDS, Kind
from harness.plugins import Attack, AttackContext, Attacked, Released

if TYPE_CHECKING:
    from torch import nn


class PartialDepthSettings(FullSettings):
    """`full`'s settings, and which part trains."""

    end: Literal["first", "last"] = "last"
    """Which end of both depths."""
    layers: int | None = Field(None, gt=0)
    """Decoder layers that train; null is half of them, rounded up; more than there are is all of them."""
    blocks: int | None = Field(None, gt=0)
    """Blocks that train of every deep module (a module with a list `blocks`) in those layers; null is all of them."""


class PartialDepth(Attack):
    """Fine-tune the first or the last decoder layers only, and of a lock's deep modules the first or last blocks."""

    kinds: ClassVar[tuple[Kind, ...]] = KINDS
    Settings = PartialDepthSettings
    settings: PartialDepthSettings

    def attack(self, released: Released, context: AttackContext) -> Attacked:
        """See `harness.plugins.Attack`."""
        from attacks.common import finetune_chosen, prepare

        model = prepare(released.model, context)
        inside, outside = chosen_prefixes(model, self.settings)
        return finetune_chosen(model, released, context, self.settings,
                               lambda name: name.startswith(inside) and not name.startswith(outside),
                               {"layers": len(inside)})  # fmt: skip


def chosen_prefixes(model: nn.Module, settings: PartialDepthSettings) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Path prefixes of the layers that train, and of the blocks in them that do not."""
    from torch import nn

    from harness.models.families import attention_modules
    from harness.models.heads import blocks_of, head_name, head_of

    head = head_of(model)
    layers = blocks_of(model) if head is not None else [name.rpartition(".")[0] for name in attention_modules(model)]
    count = -(-len(layers) // 2) if settings.layers is None else settings.layers
    kept = layers[:count] if settings.end == "first" else layers[-count:]
    frozen: list[str] = []
    for name, module in model.named_modules():
        blocks = getattr(module, "blocks", None)
        if isinstance(blocks, nn.ModuleList) and settings.blocks is not None:
            depth = range(len(blocks))
            train = depth[: settings.blocks] if settings.end == "first" else depth[-settings.blocks :]
            frozen += [f"{name}.blocks.{index}." for index in depth if index not in train]
    kept += [head_name(model)] if head is not None else []  # whatever else trains: it may be the attacker's own
    return tuple(f"{name}." for name in kept), tuple(frozen)
