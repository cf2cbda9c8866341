"""A CUDA device's memory while an attacker trains: the peak that is his, and the cap on it.

The allocator counts and caps a whole process. What lay on the device before (another model of the benchmark's), and
what the benchmark's own scoring takes between two steps, is not the attacker's: it counts neither for him nor against.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from harness.meters.memory import tensor_bytes

if TYPE_CHECKING:
    from harness.contexts import Context


class DeviceMemory:
    """The attacker's memory on one CUDA device; on any other device, nothing is counted and nothing capped."""

    def __init__(self, device: str, limit: int | None, own_bytes: int) -> None:
        self._index = cuda_index(device) if device.startswith("cuda") else None
        self._peak = self._most = 0
        self._counting = False
        if self._index is None:
            return
        if hasattr(torch._C, "_cuda_clearCublasWorkspaces"):
            torch._C._cuda_clearCublasWorkspaces()  # whoever multiplies first has to pay for them, and that is he
        torch.cuda.empty_cache()
        self._others = max(0, torch.cuda.memory_allocated(self._index) - own_bytes)
        self._outside = torch.cuda.get_per_process_memory_fraction(self._index)
        total = torch.cuda.get_device_properties(self._index).total_memory
        beside = max(0, torch.cuda.memory_reserved(self._index) - own_bytes)  # what the cap counts is whole segments
        self._inside = self._outside if limit is None else min(self._outside, (limit + beside) / total)
        self._enter()

    def begin(self) -> None:
        """A stage of its own begins: its peak is counted anew."""
        if self._index is not None:
            self._most, self._peak = self.most(), 0
            torch.cuda.reset_peak_memory_stats(self._index)

    def peak(self) -> int:
        """Bytes, the most at once since the stage began; 0 where the device is no CUDA device."""
        if not self._counting:
            return self._peak
        return max(self._peak, torch.cuda.max_memory_allocated(self._index) - self._others)

    def most(self) -> int:
        """The largest `peak` of all stages."""
        return max(self._most, self.peak())

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Inside, the device is the benchmark's: neither counted nor capped."""
        self.leave()
        try:
            yield
        finally:
            self._enter()

    def leave(self) -> None:
        """The cap ends; the peak stays known."""
        if self._index is not None:
            self._peak, self._counting = self.peak(), False
            torch.cuda.set_per_process_memory_fraction(self._outside, self._index)

    def _enter(self) -> None:
        if self._index is not None:
            torch.cuda.empty_cache()  # unused blocks would count against the cap
            torch.cuda.reset_peak_memory_stats(self._index)
            torch.cuda.set_per_process_memory_fraction(self._inside, self._index)
            self._counting = True


@contextmanager
def device_memory(context: Context, model: torch.nn.Module, beside_bytes: int = 0) -> Iterator[DeviceMemory]:
    """Count the attacker's peak from here on; on CUDA the allocator refuses him more than the budget's memory.

    Args:
        context: his; where his memory is counted already (`context.memory`), a stage of it begins.
        model: his; what of it lies on the device is his memory.
        beside_bytes: other bytes of his that lie there already (a teacher).
    """
    if context.memory is not None:
        context.memory.begin()
        yield context.memory
        return
    own = tensor_bytes(t for t in [*model.parameters(), *model.buffers()] if t.is_cuda)
    memory = DeviceMemory(context.device, context.meter.budget.memory, own + beside_bytes)
    try:
        yield memory
    finally:
        memory.leave()


def cuda_index(device: str) -> int:
    """The number of a CUDA device; of `cuda` alone, of the current one (some functions of torch want a number)."""
    index = torch.device(device).index
    return torch.cuda.current_device() if index is None else index
