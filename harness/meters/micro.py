"""What one micro-batch costs: FLOPs of forward and backward, bytes kept between them, peaks."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from harness.meters.flops import FlopCounter
from harness.meters.memory import LiveStorages


@dataclass(frozen=True, kw_only=True)
class MicroCost:
    """Exact counts of one forward and backward pass."""

    forward_flops: int
    """Of the forward pass."""
    backward_flops: int
    """Of the backward pass, recomputed forwards included."""
    kept_for_backward_bytes: int
    """Alive between forward and backward; parameters, buffers, the batch and the loss itself left out."""
    peak_backward_bytes: int
    """Largest bytes alive at any moment of backward; parameters, buffers, the batch and gradients left out."""
    peak_bytes: int
    """The same over forward and backward together."""

    def on_ranks(self, count: int) -> MicroCost:
        """The operations of `count` ranks that do as much each; bytes stay those of one device."""
        return self if count == 1 else replace(self, forward_flops=self.forward_flops * count,
                                               backward_flops=self.backward_flops * count)  # fmt: skip


def measure_micro(
    forward: Callable[[], torch.Tensor], backward: Callable[[torch.Tensor], None], params: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, MicroCost]:
    """Run one micro-batch under the meters.

    Args:
        forward: computes the scalar loss; must not keep other results alive.
        backward: runs the backward pass of the loss.
        params: tensors whose `.grad` after backward is a gradient and not an activation.

    Returns:
        The detached loss, and the counts.
    """
    live = LiveStorages()
    with _collected(), live, FlopCounter() as flops:
        loss = forward()
        gc.collect()  # rubbish in reference cycles is not kept for backward
        forward_flops, start = flops.total, live.mark()
        kept = live.alive(start, without=_numbers(live, [loss]))
        backward(loss)
        end, total = live.mark(), flops.total
    gradients = _numbers(live, [p.grad for p in params if p.grad is not None])
    peak = live.peak(start, end, without=gradients)
    cost = MicroCost(
        forward_flops=forward_flops,
        backward_flops=total - forward_flops,
        kept_for_backward_bytes=kept,
        peak_backward_bytes=peak,
        peak_bytes=max(peak, live.peak(0, start, without=gradients)),
    )
    return loss.detach(), cost


def _numbers(live: LiveStorages, tensors: Sequence[torch.Tensor]) -> list[int]:
    return [number for number in map(live.number, tensors) if number is not None]


@contextmanager
def _collected() -> Iterator[None]:
    """No garbage collection at unforeseen moments: the counts must not depend on what ran before.

    What exists already is set aside, so that collecting inside looks at new objects only and is fast.
    """
    enabled, frozen = gc.isenabled(), gc.get_freeze_count()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        if not frozen:
            gc.unfreeze()
        if enabled:
            gc.enable()
