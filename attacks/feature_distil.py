"""Repairing a classifier after an undo: its features, which the head reads, are distilled from the locked model.

The attacker's head may be new and say nothing yet, so the logits are no target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from harness.finetune import task_batches
from harness.meters.memory import module_bytes
from harness.models.heads import head_name
from harness.tasks.classification import logits_of
from harness.train_settings import TrainSettings
from harness.training import Batch, train

if TYPE_CHECKING:
    from attacks.share import Share
    from attacks.undo_specdef import UndoSpecDefSettings
    from harness.plugins import AttackContext

PASSES = 4
"""Forward passes that a step costs: the locked model's, and forward and backward of the model that is trained."""


def distil_features(model: Any, locked: Any, tokenizer: Any, settings: UndoSpecDefSettings, context: AttackContext,
                    share: Share) -> dict[str, Any]:  # fmt: skip
    """Squared error of the features on the task's inputs, over the features' own size; every parameter trained."""
    knobs = TrainSettings(learning_rate=settings.distil_learning_rate, max_steps=max(1, settings.distil_steps),
                          optim=settings.distil_optim, eval_points=0, block_size=settings.block_size,
                          per_device_train_batch_size=settings.per_device_train_batch_size)  # fmt: skip
    batches = task_batches(tokenizer, context, knobs)
    steps = min(settings.distil_steps, share.steps(), _affordable(locked, batches(0, 0), context, share))
    if not steps:
        return {"distil_steps": 0}
    knobs = knobs.model_copy(update={"max_steps": steps})
    name = head_name(model)
    locked.eval()
    with features(model, name) as ours, features(locked, name) as theirs:

        def loss(module: torch.nn.Module, batch: Batch) -> torch.Tensor:
            with torch.no_grad():
                logits_of(locked, batch)
            logits_of(module, batch)
            target = theirs().float()
            return (ours().float() - target).square().sum() / target.square().sum()

        result = train(model, batches, knobs, context, label="distil", loss_fn=loss, stop=lambda step: share.late(),
                       beside_bytes=module_bytes(locked))  # fmt: skip
    return {"distil_steps": result.steps, "distil_losses": [result.losses[0], result.losses[-1]]}


@contextmanager
def features(model: Any, head: str) -> Iterator[Callable[[], torch.Tensor]]:
    """Inside, a function that gives what the head last read, and forgets it."""
    kept: list[torch.Tensor] = []

    def keep(_: torch.nn.Module, args: Any) -> None:
        kept[:] = [args[0]]

    handle = model.get_submodule(head).register_forward_pre_hook(keep)
    try:
        yield kept.pop
    finally:
        handle.remove()


def _affordable(locked: Any, batch: Batch, context: AttackContext, share: Share) -> int:
    """Steps that the share of the budget allows, from the counted cost of one forward pass."""
    from harness.loop.passes import count_tokens
    from harness.meters.flops import FlopCounter

    inputs = {key: value.to(context.device) for key, value in batch.items()}
    tokens = count_tokens(batch)
    with FlopCounter() as counter, torch.no_grad(), context.meter.measure(tokens=0):
        logits_of(locked.eval(), inputs)
    return share.affordable(PASSES * counter.total / tokens) // tokens
