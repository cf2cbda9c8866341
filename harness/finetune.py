"""Fine-tuning on the attack's task: what every attack ends with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.packing import PackedBlocks, tokenize
from harness.train_settings import TrainSettings
from harness.training import TrainResult, train

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from harness.plugins import AttackContext


def task_batches(tokenizer: PreTrainedTokenizerBase, context: AttackContext, settings: TrainSettings) -> PackedBlocks:
    """The task's training documents, cut to `budget.examples`, packed and shuffled by the context's seed."""
    texts = context.task.train_texts()[: context.meter.budget.examples]
    return PackedBlocks(
        tokenize(texts, tokenizer),
        block_size=settings.block_size,
        batch_size=settings.per_device_train_batch_size,
        accumulate=settings.gradient_accumulation_steps,
        seed=context.seed,
    )


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
    options = {"label": "attack", "probe": context.probe} | options
    with context.meter.stage("attack"):
        return train(model, batches, settings, context, **options)
