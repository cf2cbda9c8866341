"""What the lock did to the model's conditioning: the spectra of its matrices, and the curvature they should raise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from defenses.specdef.spectrum import as_matrix
from harness.seeds import derive

STEP = 1e-3
"""Length of a finite-difference step over that of all weights together, for a Hessian-vector product."""
PRODUCTS = 12
"""Hessian-vector products of the power iteration."""


def spectra(weights: Mapping[str, torch.Tensor], k: int) -> dict[str, Any]:
    """The spectrum of each matrix, from a full SVD.

    Returns:
        JSON: `matrices` by name with the `k` `top` values, the largest `over_rms` (the root mean square value; null for
        a zero matrix) and the `condition` number (null for a singular matrix); and `mean_top`, the mean of all top
        values, which is what the lock's loss subtracts.
    """
    rows: dict[str, Any] = {}
    for name, weight in weights.items():
        values = torch.linalg.svdvals(as_matrix(weight.detach()).float())
        largest, smallest, rms = float(values[0]), float(values[-1]), float(values.square().mean().sqrt())
        rows[name] = {"top": values[:k].tolist(), "over_rms": largest / rms if rms else None,
                      "condition": largest / smallest if smallest > 1e-7 * largest else None}  # fmt: skip
    every = [value for row in rows.values() for value in row["top"]]
    return {"matrices": rows, "mean_top": sum(every) / len(every)}


def sharpness(model: nn.Module, loss: Callable[[], torch.Tensor], seed: int) -> float:
    """Estimate of the Hessian's largest eigenvalue, in magnitude, of the `loss` of `model` on some fixed batch.

    Power iteration on central differences of gradients over all parameters, which are put back afterwards. Gradient
    descent diverges locally at rates above 2 over it: the obstacle that the lock builds (paper, section 2).
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    kept = [parameter.detach().to("cpu", copy=True) for parameter in parameters]  # a device has three others to hold
    generator = torch.Generator().manual_seed(derive(seed, "sharpness"))
    direction = [torch.randn(p.shape, generator=generator).to(p.device) for p in parameters]
    scale, value = STEP * _norm(kept), 0.0

    def gradient(sign: float) -> list[torch.Tensor]:
        with torch.no_grad():
            for parameter, old, delta in zip(parameters, kept, direction, strict=True):
                parameter.copy_(old.to(parameter.device) + sign * delta)
        return list(torch.autograd.grad(loss(), parameters, materialize_grads=True))

    for _ in range(PRODUCTS):
        length = _norm(direction)
        if not 0 < length < float("inf"):
            break
        for delta in direction:
            delta.div_(length)
        ahead, behind = gradient(scale), gradient(-scale)
        direction = [a.sub_(b).div_(2 * scale) for a, b in zip(ahead, behind, strict=True)]
        del ahead, behind
        value = _norm(direction)
    with torch.no_grad():
        for parameter, old in zip(parameters, kept, strict=True):
            parameter.copy_(old)
    return value


def _norm(tensors: list[torch.Tensor]) -> float:
    return float(torch.stack([tensor.double().square().sum() for tensor in tensors]).sum().sqrt())
