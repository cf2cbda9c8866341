"""The meter: one for each attacker (or lock); knows the stage, adds up its bill, and enforces the budget."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from harness.bill import Bill, total
from harness.budget import Budget
from harness.errors import OutOfMemory, OverBudget
from harness.meters.energy import Energy


@dataclass(frozen=True, kw_only=True)
class Remaining:
    """What the budget still allows over all stages together; None is unlimited, never below 0."""

    steps: int | None
    tokens: int | None
    flops: float | None
    seconds: float | None


class Meter:
    """Counts by stage and enforces one budget over all of them.

    Wall-clock seconds and energy run while a stage is open and no `pause` is; a nested stage takes its own time out
    of the stage around it.
    """

    def __init__(self, budget: Budget | None = None, *, device: str = "cpu",
                 spent: Mapping[str, Bill] | None = None) -> None:  # fmt: skip
        self.budget = budget or Budget()
        self._bills: dict[str, Bill] = dict(spent or {})  # by stage, before this meter: a search's trials
        self._stage = "attack"
        self._depth = 0
        self._paused = 0
        self._mark = 0.0
        self._energy = Energy(device)
        self._energy_mark = 0.0
        self._joules = {stage: bill.energy_joules or 0.0 for stage, bill in self._bills.items()}
        self._seen: dict[Hashable, int] = {}

    @contextmanager
    def stage(self, name: str | None = None) -> Iterator[None]:
        """Everything inside is on the bill `name` (lock, undo, search, attack, reference); None keeps the current."""
        self._tick()
        before, self._stage = self._stage, name or self._stage
        self._depth += 1
        try:
            yield
        finally:
            self._tick()
            self._add(Bill(peak_host_bytes=peak_host_bytes()))
            self._depth -= 1
            self._stage = before

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Time and energy inside are nobody's: the benchmark scores the model."""
        self._tick()
        self._paused += 1
        try:
            yield
        finally:
            self._tick()
            self._paused -= 1

    def charge(self, bill: Bill) -> None:
        """Add counts to the current stage.

        Raises:
            OutOfMemory: `bill.peak_device_bytes` is above `budget.memory`.
        """
        self._add(bill)
        self._joules[self._stage] = self._joules.get(self._stage, 0.0) + (bill.energy_joules or 0.0)
        peak = bill.peak_device_bytes
        if self.budget.memory is not None and peak is not None and peak > self.budget.memory:
            raise OutOfMemory(f"needs {peak} bytes on the device, budget.memory is {self.budget.memory}")

    @contextmanager
    def measure(self, tokens: int = 0, key: Hashable = None) -> Iterator[None]:
        """Count the FLOPs of forward passes outside the training loop, for example a teacher's.

        Args:
            tokens: tokens that the pass processes, added to the bill.
            key: names passes of equal cost (say the batch's shape): counted once, then charged without counting.

        Raises:
            OverBudget: the budget is exceeded after the pass.
        """
        if key is not None and key in self._seen:
            yield
            flops = self._seen[key]
        else:
            from harness.meters.flops import FlopCounter

            with FlopCounter() as counter:
                yield
            flops = counter.total
            if key is not None:
                self._seen[key] = flops
        self.charge(Bill(forward_flops=flops, tokens=tokens))
        self.check()

    def remaining(self) -> Remaining:
        """What is left of steps, tokens, FLOPs and seconds."""
        total, budget = self.total, self.budget

        def left(limit: float | None, used: float) -> float | None:
            return None if limit is None else max(0, limit - used)

        steps, tokens = left(budget.steps, total.steps), left(budget.tokens, total.tokens)
        return Remaining(
            steps=None if steps is None else int(steps),
            tokens=None if tokens is None else int(tokens),
            flops=left(budget.flops, total.flops),
            seconds=left(budget.seconds, total.seconds),
        )

    def seconds_left(self) -> float | None:
        """Seconds left, cheaply enough to ask after every step; None is unlimited."""
        if self.budget.seconds is None:
            return None
        self._tick(energy=False)
        return self.budget.seconds - sum(bill.seconds for bill in self._bills.values())

    def check(self) -> None:
        """Raise OverBudget when steps, tokens, FLOPs or seconds are above the budget."""
        total = self.total
        for name in ("steps", "tokens", "flops", "seconds"):
            limit, used = getattr(self.budget, name), getattr(total, name)
            if limit is not None and used > limit:
                raise OverBudget(f"used {used:g} {name}, budget.{name} is {limit:g}")

    @property
    def current(self) -> str:
        """Name of the current stage."""
        return self._stage

    @property
    def bills(self) -> dict[str, Bill]:
        """Bills by stage, up to this moment."""
        self._tick()
        return {stage: self._with_energy(stage, bill) for stage, bill in self._bills.items()}

    @property
    def total(self) -> Bill:
        """All stages together: what the budget is compared with."""
        return total(self.bills.values())

    def _with_energy(self, stage: str, bill: Bill) -> Bill:
        if self._energy.reason is not None:
            return bill
        return bill.model_copy(update={"energy_joules": self._joules.get(stage, 0.0), "energy_reason": None})

    def _add(self, bill: Bill) -> None:
        before = self._bills.get(self._stage)
        self._bills[self._stage] = bill if before is None else before.plus(bill)

    def _tick(self, *, energy: bool = True) -> None:
        """Put the time since the last tick on the current stage's bill."""
        now = time.perf_counter()
        running = self._depth > 0 and not self._paused
        if running:
            self._add(Bill(seconds=now - self._mark))
        self._mark = now
        if energy and (joules := self._energy.read()) is not None:
            if running:
                self._joules[self._stage] = self._joules.get(self._stage, 0.0) + joules - self._energy_mark
            self._energy_mark = joules


def peak_host_bytes() -> int:
    """Largest resident set of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

