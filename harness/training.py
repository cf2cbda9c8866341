"""The one training loop (on accelerate): attacks, locks, re-distillation and pretraining all run through it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch

from harness.bill import Bill
from harness.train_settings import TrainSettings as TrainSettings  # defined torch-free, used under this name

if TYPE_CHECKING:
    from harness.plugins import Context

Batch = dict[str, torch.Tensor]


class Batches(Protocol):
    """Where batches come from: a pure function of (step, micro), so that resuming needs no iterator state."""

    def __call__(self, step: int, micro: int) -> Batch:
        """The micro-batch `micro` of optimizer step `step`, tensors on the CPU."""


@dataclass(frozen=True, kw_only=True)
class TrajectoryPoint:
    """The attacker's score (selection split) after so much was spent, undo included."""

    step: int
    tokens: int
    flops: float
    score: float


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a training run did, and the proof that it trained (design.md, invariant 2)."""

    steps: int
    losses: Sequence[float]
    trajectory: Sequence[TrajectoryPoint] = ()
    trained: Sequence[str] = ()
    """Names of tensors with requires_grad."""
    unmoved: Sequence[str] = ()
    """Trained tensors whose bytes are the same after as before."""
    missing_gradients: Sequence[str] = ()
    """Trained tensors that never had a gradient."""
    nonfinite_gradients: Sequence[str] = ()
    """Trained tensors whose gradient was inf or nan at some step."""
    stopped_by: str = "max_steps"
    """max_steps, or the budget limit that ended it."""
    extra: dict[str, Any] = field(default_factory=dict)


LossFn = Callable[[torch.nn.Module, Batch], torch.Tensor]


def causal_lm_loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Mean next-token loss, nats a token, as the model itself computes it from `labels`."""
    loss: torch.Tensor = model(**batch).loss
    return loss


def train(
    model: torch.nn.Module,
    batches: Batches,
    settings: TrainSettings,
    context: Context,
    *,
    label: str = "train",
    loss_fn: LossFn = causal_lm_loss,
    probe: Callable[[Any], float] | None = None,
    stop: Callable[[int], bool] | None = None,
    deepspeed: dict[str, Any] | None = None,
) -> TrainResult:
    """Train every parameter of `model` that requires a gradient, within `context.meter.budget`.

    Args:
        model: trained in place; tensors with requires_grad are trained, the rest is frozen.
        batches: see `Batches`.
        settings: knobs; `max_steps` is cut to what the budget still allows before the schedule is laid out.
        context: device, seed, precision, meter (charged to its current stage), folder for checkpoints.
        label: name of the progress bar.
        loss_fn: (model, micro-batch) -> scalar loss.
        probe: scores the unwrapped model at the points of the trajectory; its cost is not charged.
        stop: called with the step after each step; True ends training (early stop).
        deepspeed: a DeepSpeed configuration; the loop then runs under accelerate's DeepSpeed plug-in.

    Raises:
        OutOfMemory: the budget's memory, or the machine's, does not suffice.
        OverBudget: the budget does not allow a single step.
    """
    # First version: the counting, trajectory, resume and DeepSpeed parts land with the meters.
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from transformers import get_scheduler

    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(mixed_precision="bf16" if context.bf16 else "no", cpu=context.device == "cpu")
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=settings.learning_rate, betas=(settings.adam_beta1, settings.adam_beta2),
                                  eps=settings.adam_epsilon, weight_decay=settings.weight_decay, fused=True)
    steps = settings.max_steps
    scheduler = get_scheduler(settings.lr_scheduler_type, optimizer, int(steps * settings.warmup_ratio), steps)
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    wrapped.train()
    losses: list[float] = []
    for step in range(steps):
        total = 0.0
        for micro in range(settings.gradient_accumulation_steps):
            batch = {k: v.to(accelerator.device) for k, v in batches(step, micro).items()}
            with accelerator.autocast():
                loss = loss_fn(wrapped, batch) / settings.gradient_accumulation_steps
            accelerator.backward(loss)
            total += float(loss.detach())
        if settings.max_grad_norm:
            accelerator.clip_grad_norm_(params, settings.max_grad_norm)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        losses.append(total)
        context.meter.charge(Bill(steps=1))
        context.progress(label, step + 1, steps)
        if stop is not None and stop(step + 1):
            break
    return TrainResult(steps=len(losses), losses=losses)
