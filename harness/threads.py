"""How many threads one piece of work gets, and so how many pieces run side by side. Imports no torch at the top.

The products of a small model are too small to share: on two cores a training step of the shipped model's lock takes
0.38 s with two threads and 0.40 s with one. So small models work on one thread, and the other cores take other pieces.
It also makes their numbers the same on every number of cores: another number of threads adds in another order.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

ONE_THREAD_BELOW = 20_000_000
"""Parameters below which a model works on one thread."""


def usable_cores() -> int:
    """Cores this process may use: `OMP_NUM_THREADS` where it is set, else its affinity."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdigit() and int(given) > 0:
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_for(parameters: int) -> int:
    """Threads that a model of so many parameters works on."""
    return 1 if parameters < ONE_THREAD_BELOW else usable_cores()


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Inside, torch works on `count` threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def blas_threads(count: int) -> Iterator[None]:
    """Inside, numpy's products of matrices work on `count` threads: small ones are slower on more."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(count, user_api="blas"):
        yield
