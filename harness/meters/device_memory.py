"""A CUDA device's memory while an attacker trains: the peak that is his, and the cap on it.

The allocator counts and caps a whole process. What lay on the device before (another model of the benchmark's), and
what the benchmark's own scoring takes between two steps, is not the attacker's: it counts neither for him nor against.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from harness.meters.memory import tensor_bytes


class DeviceMemory:
    """The attacker's memory on one CUDA device; on any other device, nothing is counted and nothing capped."""

    def __init__(self, device: str, limit: int | None, own_bytes: int) -> None:
        self._index = cuda_index(device) if device.startswith("cuda") else None
        self._peak = 0
        if self._index is None:
            return
        torch.cuda.empty_cache()
        self._others = max(0, torch.cuda.memory_allocated(self._index) - own_bytes)
        self._outside = torch.cuda.get_per_process_memory_fraction(self._index)
        total = torch.cuda.get_device_properties(self._index).total_memory
        self._inside = self._outside if limit is None else min(self._outside, (limit + self._others) / total)
        self._enter()

    def peak(self) -> int:
        """Bytes, the most at once so far; 0 where the device is no CUDA device."""
        if self._index is None:
            return 0
        return max(self._peak, torch.cuda.max_memory_allocated(self._index) - self._others)

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
            self._peak = self.peak()
            torch.cuda.set_per_process_memory_fraction(self._outside, self._index)

    def _enter(self) -> None:
        if self._index is not None:
            torch.cuda.empty_cache()  # unused blocks would count against the cap
            torch.cuda.reset_peak_memory_stats(self._index)
            torch.cuda.set_per_process_memory_fraction(self._inside, self._index)


@contextmanager
def device_memory(
    device: str, limit: int | None, model: torch.nn.Module, beside_bytes: int = 0
) -> Iterator[DeviceMemory]:
    """Count the attacker's peak from here on; on CUDA the allocator refuses him more than `limit` bytes.

    Args:
        device: where he trains.
        limit: `budget.memory`; None is all that the process may have.
        model: his; what of it lies on the device is his memory.
        beside_bytes: other bytes of his that lie there already (a teacher).
    """
    own = tensor_bytes(t for t in [*model.parameters(), *model.buffers()] if t.is_cuda)
    memory = DeviceMemory(device, limit, own + beside_bytes)
    try:
        yield memory
    finally:
        memory.leave()


def cuda_index(device: str) -> int:
    """The number of a CUDA device; of `cuda` alone, of the current one (some functions of torch want a number)."""
    index = torch.device(device).index
    return torch.cuda.current_device() if index is None else index
