"""Muon over many small matrices: torch.optim.Muon, with matrices of one shape orthogonalised together.

torch's goes matrix by matrix. A DLR-Lock of the shipped model trains 320 matrices of 18 x 128, on which that takes as
long as the backward pass; stacked, an eighth of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from math import sqrt
from typing import Any

import torch

STACKED = 2**25
"""Elements orthogonalised together, at most (or one matrix): the temporaries are several times as large."""


class StackedMuon(torch.optim.Muon):
    """See the module; the update is scaled to AdamW's (`adjust_lr_fn="match_rms_adamw"`, arXiv 2502.16982)."""

    def __init__(self, params: Any, *, lr: float, weight_decay: float) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update of every matrix that has a gradient."""
        for group in self.param_groups:
            stacks: defaultdict[Any, list[torch.Tensor]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    stacks[p.shape, p.device].append(p)
            for (shape, _), members in stacks.items():
                at_once = max(1, STACKED // shape.numel())
                for start in range(0, len(members), at_once):
                    self._step(members[start : start + at_once], group)

    def _step(self, members: list[torch.Tensor], group: dict[str, Any]) -> None:
        grads: list[Any] = [p.grad for p in members]
        for p in members:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        buffers = [self.state[p]["momentum_buffer"] for p in members]
        torch._foreach_lerp_(buffers, grads, 1 - group["momentum"])
        updates = torch._foreach_lerp(grads, buffers, group["momentum"])
        found = orthogonalised(torch.stack(updates), group["ns_coefficients"], group["ns_steps"], group["eps"])
        rate = group["lr"] * 0.2 * sqrt(max(members[0].shape))
        torch._foreach_mul_(members, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(members, found.to(members[0].dtype).unbind(), alpha=-rate)


def orthogonalised(stack: torch.Tensor, coefficients: tuple[float, float, float], steps: int,
                   eps: float) -> torch.Tensor:  # fmt: skip
    """Newton-Schulz iterations towards `U V^T` of each matrix `U S V^T`, as torch.optim.Muon does them.

    Args:
        stack: (matrices, rows, columns).
        coefficients: of the quintic.
        steps: iterations.
        eps: floor of the norm that a matrix is divided by first.

    Returns:
        (matrices, rows, columns), in bfloat16 on a GPU as torch's, in fp32 on a CPU (where bfloat16 may be emulated).
    """
    a, b, c = coefficients
    x = stack.float() if stack.device.type == "cpu" else stack.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
