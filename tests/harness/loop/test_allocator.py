"""Freed memory stays in the process, ready for the next step: counted in bytes that the allocator holds."""

from __future__ import annotations

import subprocess
import sys

import pytest

HELD = """
import ctypes, sys, torch
from harness.loop.allocator import keep_freed_memory
NAMES = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in NAMES.split()]
library = ctypes.CDLL(None)
if not hasattr(library, "mallinfo2") or (sys.argv[1] == "keep" and not keep_freed_memory()):
    print("unknown"); raise SystemExit
library.mallinfo2.restype = Info
freed = torch.ones(4 << 20)  # 16 MiB
del freed
print(library.mallinfo2().fordblks)
"""


def test_freed_memory_is_kept_for_the_next_tensor() -> None:
    found = {}
    for way in ("keep", "leave"):
        done = subprocess.run([sys.executable, "-c", HELD, way], capture_output=True, text=True, check=True)
        found[way] = done.stdout.strip()
    if "unknown" in found.values():
        pytest.skip("the C library is not glibc 2.33 or later")
    assert int(found["keep"]) > 16 << 20, found
    assert int(found["leave"]) < 16 << 20, found
