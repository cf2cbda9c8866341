"""Recovering a residual stack's activations from its output in backward, instead of keeping or recomputing them.

A block `y = h + f(h)` whose branch is a contraction is undone by iterating `h <- y - f(h)` (Behrmann et al.,
"Invertible Residual Networks", 2019). Backward then walks from the output to the input and holds one block at a time,
so what is kept does not grow with the depth. The input is kept as well: it says whether the walk arrived where it
should, and where it did not, or a block did not converge, the stack is recomputed from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

STEP = 1e-6
"""Relative change of a row at which an inversion has converged: a few units in the last place of fp32."""


@dataclass(kw_only=True)
class Inversions:
    """How stacks are inverted, and how it went."""

    tolerance: float
    """Largest relative error of a row of a stack's recovered input at which the gradients count as exact."""
    most: int
    """Iterations on one block before it counts as no contraction."""
    stacks: int = 0
    """Backward passes through a stack."""
    fallbacks: int = 0
    """Of these, the ones that were recomputed."""
    blocks: int = 0
    """Blocks inverted."""
    iterations: int = 0
    """Evaluations of a block that took, all together."""
    error: float = 0.0
    """Largest relative error of a recovered input, of the stacks that reached it."""

    def report(self) -> dict[str, Any]:
        """JSON for the attack's report."""
        mean = self.iterations / self.blocks if self.blocks else None
        return {"stacks": self.stacks, "fallbacks": self.fallbacks, "iterations_a_block": mean,
                "largest_error": self.error}  # fmt: skip


@contextmanager
def reversed_stacks(stacks: Sequence[Any], how: Inversions) -> Iterator[None]:
    """Inside, every stack (`blocks`, run through its method `run_blocks`) keeps its input and output only."""
    for stack in stacks:
        stack.run_blocks = _runner(list(stack.blocks), how)
    try:
        yield
    finally:
        for stack in stacks:
            del stack.run_blocks


def most_flops(stacks: Sequence[nn.Module], tokens: int, how: Inversions) -> float:
    """FLOPs of the dearest backward through all stacks: every block to the last iteration, then all recomputed twice.

    Args:
        stacks: their parameters are taken as matrices, each applied once to every token.
        tokens: of a micro-batch.
        how: the most iterations.
    """
    return 2.0 * tokens * (how.most + 3) * sum(p.numel() for stack in stacks for p in stack.parameters())


def _runner(blocks: list[nn.Module], how: Inversions) -> Any:
    def run(h: torch.Tensor, first: int, last: int) -> torch.Tensor:
        chosen = blocks[first:last]
        params = [p for block in chosen for p in block.parameters() if p.requires_grad]
        if not torch.is_grad_enabled() or not (params or h.requires_grad):
            return _through(chosen, h)
        out: torch.Tensor = _Reversible.apply(chosen, how, h, *params)  # type: ignore[no-untyped-call]
        return out

    return run


class _Reversible(torch.autograd.Function):
    """A stack of residual blocks that keeps its input and its output."""

    @staticmethod
    def forward(ctx: Any, blocks: list[nn.Module], how: Inversions, x: torch.Tensor,
                *params: torch.Tensor) -> torch.Tensor:  # fmt: skip
        """(..., width) to (..., width)."""
        kind = x.device.type
        ctx.blocks, ctx.how, ctx.params = blocks, how, params
        ctx.cast = (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
        y = _through(blocks, x)
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of the input and of every parameter."""
        x, y = ctx.saved_tensors
        kind, dtype, enabled = ctx.cast
        ctx.how.stacks += 1
        with torch.autocast(kind, dtype, enabled):
            found = _walk_back(ctx.blocks, ctx.how, x, y, grad)
            if found is None:
                ctx.how.fallbacks += 1
                found = _recompute(ctx.blocks, x, grad)
        back, by_parameter = found
        return None, None, back, *(by_parameter.get(p) for p in ctx.params)


Gradients = tuple[torch.Tensor | None, dict[torch.Tensor, torch.Tensor]]


def _walk_back(blocks: list[nn.Module], how: Inversions, x: torch.Tensor, y: torch.Tensor,
               grad: torch.Tensor) -> Gradients | None:  # fmt: skip
    """Gradients by inverting block after block; None where one does not converge or the input is missed."""
    gradients: dict[torch.Tensor, torch.Tensor] = {}
    h = y
    for block in reversed(blocks):
        found = invert(block, h, how)
        if found is None:
            return None
        h = found
        back, own = _block_gradients([block], h, grad)
        assert back is not None
        grad, gradients = back, gradients | own
    error = _largest(h - x, x)
    how.error = max(how.error, error)
    return (grad, gradients) if error <= how.tolerance else None


@torch.no_grad()
def invert(block: nn.Module, y: torch.Tensor, how: Inversions) -> torch.Tensor | None:
    """The h with `block(h) = y`, (..., width), by fixed-point iteration; None if it does not converge in `how.most`."""
    how.blocks += 1
    h = y
    for _ in range(how.most):
        how.iterations += 1
        step: torch.Tensor = y - block(h)
        h = h + step
        if _largest(step, h) <= STEP:
            return h
    return None


def _recompute(blocks: list[nn.Module], x: torch.Tensor, grad: torch.Tensor) -> Gradients:
    """The same gradients from the input, recomputed in pieces."""
    size = math.isqrt(len(blocks) - 1) + 1
    return _block_gradients(blocks, x, grad, size if size < len(blocks) else 0)


def _block_gradients(blocks: list[nn.Module], x: torch.Tensor, grad: torch.Tensor, piece: int = 0) -> Gradients:
    params = [p for block in blocks for p in block.parameters() if p.requires_grad]
    with torch.enable_grad():
        h = x.detach().requires_grad_()
        out = h
        for first in range(0, len(blocks), piece or len(blocks)):
            part = blocks[first : first + (piece or len(blocks))]
            out = checkpoint(_through, part, out, use_reentrant=False) if piece else _through(part, out)
        back, *own = torch.autograd.grad(out, [h, *params], grad)
    return back, dict(zip(params, own, strict=True))


def _through(blocks: Sequence[nn.Module], h: torch.Tensor) -> torch.Tensor:
    for block in blocks:
        h = block(h)
    return h


def _largest(difference: torch.Tensor, value: torch.Tensor) -> float:
    """The largest relative error of a row; inf for nan."""
    lengths = torch.linalg.vector_norm(value, dim=-1).clamp_min(torch.finfo(value.dtype).tiny)
    error = float((torch.linalg.vector_norm(difference, dim=-1) / lengths).max())
    return error if error == error else math.inf
