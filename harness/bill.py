"""A bill: what one stage (lock, undo, search, attack, reference) cost."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import Self

from harness.settings import Settings


class Bill(Settings):
    """Counts add up over the parts of a stage; peaks take the largest."""

    forward_flops: float = 0
    """Counted floating-point operations of forward passes (a multiply-add is 2)."""
    backward_flops: float = 0
    """Counted operations of backward passes, recomputed forwards included."""
    tokens: int = 0
    """Tokens that went through the model (a frozen teacher's pass over the same tokens is not counted twice)."""
    steps: int = 0
    """Optimizer steps."""
    seconds: float = 0
    """Wall-clock seconds, scoring by the benchmark excluded."""
    peak_device_bytes: int | None = None
    """Largest bytes on the device: the allocator's peak on CUDA, accounted on CPU."""
    kept_for_backward_bytes: int = 0
    """Bytes alive for backward when a forward pass ends (one micro-batch), parameters excluded."""
    peak_backward_bytes: int = 0
    """Largest bytes of activations alive at any moment of a backward pass, recomputed ones included."""
    optimizer_bytes: int = 0
    """Bytes of optimizer state."""
    gradient_bytes: int = 0
    """Bytes of parameter gradients."""
    trainable_parameters: int = 0
    """Number of parameters with a gradient."""
    peak_host_bytes: int | None = None
    """Largest resident set size of the process (ru_maxrss)."""
    energy_joules: float | None = None
    """Energy where a counter exists."""
    energy_reason: str | None = "no energy counter is readable on this machine"
    """Why energy is null."""

    @property
    def flops(self) -> float:
        """Forward and backward together."""
        return self.forward_flops + self.backward_flops

    def plus(self, other: Bill) -> Self:
        """The bill of two parts of one stage: counts added, peaks maxed, energy known only if both are."""
        energy = None
        if self.energy_joules is not None and other.energy_joules is not None:
            energy = self.energy_joules + other.energy_joules
        peaks = ("kept_for_backward_bytes", "peak_backward_bytes", "optimizer_bytes", "gradient_bytes",
                 "trainable_parameters")  # fmt: skip
        counts = ("forward_flops", "backward_flops", "tokens", "steps", "seconds")
        update: dict[str, object] = {name: getattr(self, name) + getattr(other, name) for name in counts}
        update |= {name: max(getattr(self, name), getattr(other, name)) for name in peaks}
        for name in ("peak_device_bytes", "peak_host_bytes"):
            known = [value for value in (getattr(self, name), getattr(other, name)) if value is not None]
            update[name] = max(known) if known else None
        return self.model_copy(update={**update, "energy_joules": energy})


def total(bills: Iterable[Bill]) -> Bill:
    """All parts as one bill; an empty bill when there are none."""
    parts = list(bills)
    return reduce(Bill.plus, parts[1:], parts[0]) if parts else Bill()
