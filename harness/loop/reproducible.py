"""The one seeded place of a training run, and the switches that make it repeat bit for bit."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from harness.loop.allocator import fixed_cublas


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Whatever draws random numbers inside leaves no trace outside."""
    python, legacy = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)


@contextmanager
def strictly(wanted: bool) -> Iterator[None]:
    """Inside `reproducible`, where it is `wanted`: an operation that cannot repeat its bits is an error.

    Attention on a GPU has both kinds of backward pass, and takes the one that repeats only if it is asked so.
    """
    if not wanted:
        yield
        return
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True, warn_only=True)


def cannot_repeat(error: RuntimeError) -> bool:
    """Whether this is what `strictly` raises."""
    return any(text in str(error) for text in ("does not have a deterministic implementation",
                                               "Deterministic behavior was enabled"))  # fmt: skip


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Seed every generator, prefer deterministic kernels, and put everything back afterwards."""
    fixed_cublas()
    mode = torch.get_deterministic_debug_mode()
    switches: Any = torch.utils.deterministic
    fill = switches.fill_uninitialized_memory
    with random_state_kept():
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True, warn_only=True)
        switches.fill_uninitialized_memory = False  # costs a pass over every new tensor
        try:
            yield
        finally:
            torch.set_deterministic_debug_mode(mode)
            switches.fill_uninitialized_memory = fill
