"""What is set for a process before it computes: the C library's allocator, and the workspace of cuBLAS."""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD, _LARGEST_INT = 32 << 20, 2**31 - 1


def keep_freed_memory() -> bool:
    """Let freed activations be used again, instead of returning their pages to the kernel and faulting them in anew.

    A training step of a small model allocates and frees hundreds of tensors of some hundred KiB: with glibc's defaults
    that is thousands of page faults, about 3 % of the step. For the whole process, from now on.

    Returns:
        Whether the C library knows how (glibc does).
    """
    try:
        tune = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    return bool(tune(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD) and tune(_TRIM_THRESHOLD, _LARGEST_INT))


def fixed_cublas() -> None:
    """What cuBLAS needs for the same sums each time; it reads this at its first product, before any model computes."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
