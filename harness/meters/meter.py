"""The meter: one for each attacker (or lock); knows the stage, adds up its bill, and enforces the budget."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager

from harness.bill import Bill
from harness.budget import Budget
from harness.errors import OutOfMemory


class Meter:
    """Counts by stage and enforces one budget over all of them."""

    def __init__(self, budget: Budget | None = None) -> None:
        self.budget = budget or Budget()
        self.bills: dict[str, Bill] = {}
        self._stage = "attack"

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Everything inside is on the bill `name` (lock, undo, search, attack, reference); adds wall-clock seconds."""
        before, self._stage = self._stage, name
        start = time.perf_counter()
        try:
            yield
        finally:
            rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            self._add(Bill(seconds=time.perf_counter() - start, peak_host_bytes=rss))
            self._stage = before

    def charge(self, bill: Bill) -> None:
        """Add counts to the current stage.

        Raises:
            OutOfMemory: `bill.peak_device_bytes` is above `budget.memory`.
        """
        self._add(bill)
        peak = bill.peak_device_bytes
        if self.budget.memory is not None and peak is not None and peak > self.budget.memory:
            raise OutOfMemory(f"needs {peak} bytes on the device, budget.memory is {self.budget.memory}")

    @property
    def total(self) -> Bill:
        """All stages together: what the budget is compared with."""
        total = Bill()
        for bill in self.bills.values():
            total = total.plus(bill)
        return total

    def _add(self, bill: Bill) -> None:
        self.bills[self._stage] = self.bills.get(self._stage, Bill()).plus(bill)
