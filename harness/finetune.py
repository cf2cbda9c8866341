"""Fine-tuning on the attack's task: what every attack ends with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.train_settings import TrainSettings
from harness.training import TrainResult, train

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from harness.plugins import AttackContext


def task_batches(tokenizer: PreTrainedTokenizerBase, context: AttackContext, settings: TrainSettings) -> Any:
    """The task's training data, cut to `budget.examples` and shuffled by the context's seed (see `Task.batches`)."""
    return context.task.batches(tokenizer, settings, seed=context.seed, examples=context.meter.budget.examples)


def task_blocks(tokenizer: PreTrainedTokenizerBase, context: AttackContext, block_size: int) -> torch.Tensor:
    """The task's training text as an undoing reads it, (blocks, block_size) int64: it does not depend on how the
    fine-tuning after it is batched."""
    blocks: torch.Tensor = task_batches(tokenizer, context, TrainSettings(block_size=block_size)).blocks
    return blocks


def finetune(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    context: AttackContext,
    settings: TrainSettings,
    **options: Any,
) -> TrainResult:
    """Train `model` on the attack's task, on the bill `attack`, scored along the way by the context's probe.

    Args:
        model: tensors with requires_grad are trained in place.
        tokenizer: of the released model.
        context: task, budget, seed, device.
        settings: training knobs.
        **options: further keyword arguments of `train`.

    Raises:
        OutOfMemory: see `train`.
        OverBudget: see `train`.
        UsageError: the task has no training text, or nothing of the model is trained.
    """
    batches = task_batches(tokenizer, context, settings)
    options = {"label": "attack", "probe": context.probe, "loss_fn": context.task.loss_fn} | options
    with context.meter.stage("attack"):
        return train(model, batches, settings, context, **options)
