"""`checkpointing`: full fine-tuning that recomputes activations instead of keeping them.

Two levels are nested. The decoder layers are recomputed by transformers' own mechanism, so only each layer's input is
kept. That alone leaves a peak of one whole layer, which in a deep lock is the lock; so a module that can recompute
itself in pieces (`checkpoint`, `segments`, as a DLR-Net can) does so too, inside the layer's recomputation. With
`kind=reversible` such a module's activations are recovered from its output instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from attacks.full import FullSettings
from harness.plugins import Attack, AttackContext, Attacked, Knowledge, Released

if TYPE_CHECKING:
    from torch import nn


class CheckpointingSettings(FullSettings):
    """`full`'s settings, and what is recomputed."""

    gradient_checkpointing: bool = True
    """Recompute each decoder layer in backward (transformers' own mechanism)."""
    segments: int | None = Field(None, ge=0)
    """Pieces in which a deep module of a layer recomputes itself; null is the square root of its depth, 0 is off."""
    kind: Literal["recompute", "reversible"] = "recompute"
    """What a deep module does: `recompute` itself in pieces, or keep its ends and walk back from the output by
    fixed-point iteration, block by block, recomputing where that does not arrive (`reversible`)."""
    tolerance: float = Field(1e-4, gt=0)
    """`reversible`: largest relative error of a row of a module's recovered input; above it the module recomputes."""
    iterations: int = Field(30, gt=0)
    """`reversible`: most iterations on a block; one that takes more makes the module be recomputed."""


class Checkpointing(Attack):
    """Full fine-tuning with activations recomputed: of each layer, and in pieces inside each deep module of a lock."""

    knowledge = Knowledge.FAMILY
    Settings = CheckpointingSettings
    settings: CheckpointingSettings

    def attack(self, released: Released, context: AttackContext) -> Attacked:
        """See `harness.plugins.Attack`."""
        from attacks.common import finish, prepare, unfreeze
        from harness.finetune import finetune

        model = prepare(released.model, context)
        targets = unfreeze(model)
        if self.settings.kind == "reversible":
            return self._reversible(model, targets, released, context)
        segmented = switch_on(model, self.settings.segments)
        with context.meter.stage("attack"):
            training = finetune(model, released.tokenizer, context, self.settings)
        for _, module in deep_modules(model):
            module.checkpoint = False
        return Attacked(model=finish(model), training=training, targets=targets, report={"segments": segmented})

    def _reversible(self, model: Any, targets: list[str], released: Released, context: AttackContext) -> Attacked:
        from attacks.common import finish
        from attacks.reversible import Inversions, most_flops, reversed_stacks
        from harness.finetune import finetune

        settings = self.settings
        how = Inversions(tolerance=settings.tolerance, most=settings.iterations)
        stacks = [module for _, module in deep_modules(model)]
        tokens = settings.per_device_train_batch_size * settings.block_size
        with context.meter.stage("attack"), reversed_stacks(stacks, how):
            training = finetune(model, released.tokenizer, context, settings,
                                spare_flops=most_flops(stacks, tokens, how))  # fmt: skip
        return Attacked(model=finish(model), training=training, targets=targets, report={"reversible": how.report()})


def deep_modules(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Modules that can recompute themselves in pieces: a flag `checkpoint`, a number `segments`, and `blocks`."""
    for name, module in model.named_modules():
        if isinstance(getattr(module, "checkpoint", None), bool) and hasattr(module, "segments"):
            yield name, module


def switch_on(model: nn.Module, segments: int | None) -> dict[str, int]:
    """Make every deep module recompute itself; returns the number of pieces by module name."""
    chosen: dict[str, int] = {}
    for name, module in deep_modules(model):
        pieces = round(len(module.blocks) ** 0.5) if segments is None else min(segments, len(module.blocks))
        module.checkpoint, module.segments = pieces > 0, max(pieces, 1)
        chosen[name] = pieces
    return chosen
