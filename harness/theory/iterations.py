"""Adam's steps to a given loss for many toy networks at once (SpecDef workshop paper, Figure 2, top row)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from harness.theory.networks import Network

BETAS, EPSILON = (0.9, 0.999), 1e-8


def adam_steps(
    network: Network, params: Mapping[str, Tensor], x: Tensor, y: Tensor, *, target: Tensor, rate: Tensor, limit: int
) -> tuple[list[int | None], list[float]]:
    """Full-batch Adam on independent runs, each until its loss is at most its target or all others have reached theirs.

    Args:
        network: the architecture.
        params: starting matrices, (runs, out, in).
        x: inputs, (runs, examples, ...).
        y: targets, (runs, examples, outputs).
        target: loss to reach, (runs,).
        rate: learning rate, (runs,).
        limit: most steps.

    Returns:
        Steps of each run, 0 if it starts there, None where the limit is not enough; and its least loss until the end.
    """
    weights = {name: value.clone().requires_grad_() for name, value in params.items()}
    moments = [{name: torch.zeros_like(value) for name, value in weights.items()} for _ in BETAS]
    found, least = torch.full((len(rate),), -1), torch.full_like(rate, torch.inf)
    for step in range(limit + 1):
        loss = network.loss(weights, x, y)
        gradients = torch.autograd.grad(loss.sum(), list(weights.values()))
        loss = loss.detach()
        least = torch.minimum(least, loss)
        found[(found < 0) & (loss <= target)] = step
        if bool((found >= 0).all()):
            break
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
            first, second = (moment[name] for moment in moments)
            first.mul_(BETAS[0]).add_(gradient, alpha=1 - BETAS[0])
            second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
            size = (second / (1 - BETAS[1] ** (step + 1))).sqrt_().add_(EPSILON)
            weight.data -= rate[:, None, None] / (1 - BETAS[0] ** (step + 1)) * first / size
    return [int(count) if count >= 0 else None for count in found], least.tolist()
