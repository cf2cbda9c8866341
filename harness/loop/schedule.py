"""How many steps the budget allows, and the learning rate and the scoring points of each."""

from __future__ import annotations

import math

import torch

from harness.errors import OverBudget
from harness.meters.meter import Remaining
from harness.train_settings import TrainSettings

TENTHS, STEP_GAMMA = 10, 0.7


def plan_steps(wanted: int, remaining: Remaining, tokens: int, flops: float = 0) -> tuple[int, str]:
    """Steps that fit, and what limits them: `max_steps`, `steps`, `tokens` or `flops`.

    Args:
        wanted: steps that the settings ask for.
        remaining: what the budget allows.
        tokens: tokens an optimizer step.
        flops: FLOPs an optimizer step; 0 while unknown.

    Raises:
        OverBudget: not a single step fits.
    """
    allowed: list[tuple[float, str]] = [(wanted, "max_steps")]
    if remaining.steps is not None:
        allowed.append((remaining.steps, "steps"))
    if remaining.tokens is not None and tokens:
        allowed.append((remaining.tokens // tokens, "tokens"))
    if remaining.flops is not None and flops:
        allowed.append((remaining.flops // flops, "flops"))
    steps, limit = min(allowed, key=lambda pair: pair[0])
    if steps < 1 or (remaining.seconds is not None and remaining.seconds <= 0):
        raise OverBudget(f"budget.{'seconds' if steps >= 1 else limit} does not allow a single step")
    return int(steps), limit


def warmup_steps(steps: int, ratio: float) -> int:
    """Warm-up steps as transformers' Trainer counts them, but never all of the steps (the first has rate 0)."""
    return min(math.ceil(steps * ratio), steps - 1)


def learning_rates(settings: TrainSettings, steps: int) -> list[float]:
    """The learning rate of each step, from transformers' schedulers, or torch's StepLR over tenths; (steps,)."""
    from transformers import get_scheduler

    if settings.lr_scheduler_type == "step":  # ten epochs of the usual MNIST recipe, whatever the number of steps
        return [settings.learning_rate * STEP_GAMMA ** (TENTHS * step // steps) for step in range(steps)]
    dummy = torch.optim.SGD([torch.zeros(1)], lr=settings.learning_rate)
    scheduler = get_scheduler(settings.lr_scheduler_type, dummy, warmup_steps(steps, settings.warmup_ratio), steps)
    rates = []
    for _ in range(steps):
        rates.append(float(scheduler.get_last_lr()[0]))
        dummy.step()
        scheduler.step()
    return rates


def eval_steps(steps: int, points: int) -> set[int]:
    """Steps after which the model is scored: `points` evenly spaced ones, the end included, and the start (0)."""
    return {round(steps * i / points) for i in range(points + 1)} if points else set()
