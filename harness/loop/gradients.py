"""Gradients of one step: their norms serve the clip and the proof that every trained tensor got a finite one."""

from __future__ import annotations

from collections.abc import Sequence

import torch


class GradientWatch:
    """Clips, and remembers which tensors never had a gradient and which had one that was not finite."""

    def __init__(self, named: Sequence[tuple[str, torch.nn.Parameter]]) -> None:
        self._named = list(named)
        self.missing = {name for name, _ in named}
        """Names without a gradient so far."""
        self.nonfinite: set[str] = set()
        """Names whose gradient was inf or nan at some step."""

    def clip(self, max_norm: float) -> bool:
        """Scale all gradients so that their joint norm is at most `max_norm` (0: off).

        Returns:
            False when some gradient is not finite: stepping would destroy the weights.
        """
        if self.missing:
            self.missing -= {name for name, p in self._named if p.grad is not None}
        grads = [p.grad for _, p in self._named if p.grad is not None]
        if not grads:
            return True
        total = float(_total_norm(grads))  # the only wait for the device in a step
        if total != total or total == float("inf"):
            bad = {name for name, p in self._named if p.grad is not None and not bool(p.grad.isfinite().all())}
            self.nonfinite |= bad
            if bad:
                return False
            total = float(_total_norm([g.double() for g in grads]))  # finite, but too large to square in fp32
        if max_norm and (scale := max_norm / (total + 1e-6)) < 1:
            torch._foreach_mul_(grads, scale)
        return True


def _total_norm(grads: Sequence[torch.Tensor]) -> torch.Tensor:
    norms = torch._foreach_norm(list(grads))
    first = norms[0]
    if any(norm.dtype != first.dtype or norm.device != first.device for norm in norms):
        norms = tuple(norm.to(first.device, torch.float32) for norm in norms)
    total: torch.Tensor = torch.linalg.vector_norm(torch.stack(list(norms)))
    return total
