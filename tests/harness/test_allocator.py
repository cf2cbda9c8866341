"""Freed memory stays in the process: counted in page faults, not in seconds."""

from __future__ import annotations

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from harness.allocator import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    print("unknown"); raise SystemExit
def work():
    parts = [torch.ones(1 << 17) for _ in range(64)]  # 512 KiB each, all alive at once, then none
    return sum(float(part[0]) for part in parts)
work(), work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8): work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_freed_memory_is_used_again_without_page_faults() -> None:
    found = {}
    for way in ("keep", "leave"):
        done = subprocess.run([sys.executable, "-c", FAULTS, way], capture_output=True, text=True, check=True)
        found[way] = done.stdout.strip()
    if found["keep"] == "unknown":
        pytest.skip("not glibc")
    assert int(found["keep"]) < int(found["leave"]) / 4, found
