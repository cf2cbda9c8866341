"""Which job runs next, what is tried again, what is given up: one loop over a plan and an executor.

A job runs as soon as what it needs is made and a slot is free, in the order of the plan. Jobs that another command has
claimed are asked for again later. A process or machine that dies is infrastructure: its job is tried again, after a
pause that doubles. An error is not: it would only come again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from harness.cell import give_up
from harness.errors import UsageError
from harness.executors.base import Ended, Executor, Place
from harness.planning.claims import Claims
from harness.planning.plan import Job
from harness.records.provenance import utc_now
from harness.records.record import Record
from harness.records.record_files import finished
from harness.spec import Spec

PATIENCE = 0.25
"""Seconds between two looks at clocks, when nothing happens."""
ASK_AGAIN = 1.0
"""Seconds until a job that another command has claimed is asked for again."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What is tolerated."""

    timeout: float | None = None
    """Seconds that a job may take; None is any."""
    retries: int = 3
    """Times that a job is tried again after a crash of its process or machine."""
    pause: float = 1.0
    """Seconds before the first of these; doubled each time."""


class Watcher(Protocol):
    """Is told what happens; draws the live table."""

    def plan(self, jobs: Sequence[Job]) -> None:
        """These are the jobs."""

    def started(self, job: Job) -> None:
        """A job runs."""

    def said(self, job: Job, text: str, done: int, total: int) -> None:
        """A job says something: a line (total 0), or how far it is."""

    def ended(self, job: Job, how: str, detail: str) -> None:
        """A job is over, or put off (`how` is `busy`)."""

    def tick(self) -> None:
        """Time passes."""


@dataclass
class _State:
    job: Job
    tries: int = 0
    not_before: float = 0.0
    started: float = 0.0
    elsewhere: bool = False
    """Another command has been at it."""
    failed: str | None = None
    """Why what it needs is not there."""


@dataclass
class Scheduler:
    """Runs the jobs of a plan; use `run` once."""

    jobs: Sequence[Job]
    executor: Executor
    place: Place
    watcher: Watcher
    rules: Rules = field(default_factory=Rules)

    def run(self) -> Iterator[Record]:
        """Every cell's record, as it comes to be.

        Raises:
            UsageError: a model that cannot be loaded, or a record of another spec under a cell's id.
            OSError: there is no room for results.
        """
        self._claims = Claims(self.place.out, self.place.claims)
        self._began = utc_now()
        self._waiting = {job.id: _State(job) for job in self.jobs}
        self._running: dict[str, _State] = {}
        self.watcher.plan(self.jobs)
        try:
            while self._waiting or self._running:
                yield from self._fill()
                for event in self.executor.poll(PATIENCE if self._running else PATIENCE / 5):
                    if isinstance(event, Ended):
                        yield from self._over(event)
                    elif event.job in self._running:
                        self.watcher.said(self._running[event.job].job, event.text, event.done, event.total)
                yield from self._overdue()
                self.watcher.tick()
        finally:
            self.executor.close()

    # -- starting ----------------------------------------------------------------------------------------------------

    def _fill(self) -> Iterator[Record]:
        """Start what can start; what needs something that failed is given up."""
        for state in [state for state in self._waiting.values() if state.failed is not None]:
            del self._waiting[state.job.id]
            yield from self._give_up(state, str(state.failed))
        now = time.monotonic()
        both = (*self._waiting.values(), *self._running.values())
        loading = any(state.job.kind == "load" for state in both)  # before anything else, each model is seen to load
        for name in list(self._waiting):
            if len(self._running) >= self.executor.slots:
                return
            state = self._waiting[name]
            ready = not any(need in self._waiting or need in self._running for need in state.job.needs)
            if not ready or state.not_before > now or (loading and state.job.kind != "load"):
                continue
            if (record := self._made_elsewhere(state)) is not None:
                del self._waiting[name]
                self.watcher.ended(state.job, "done", f"{record.status}, by another command")
                yield record
            elif not self._claims.free(name):
                state.not_before, state.elsewhere = now + ASK_AGAIN, True
                self.watcher.ended(state.job, "busy", "")
            else:
                self._running[name] = self._waiting.pop(name)
                self.watcher.started(state.job)
                self.executor.start(state.job)
                state.started = time.monotonic()

    def _made_elsewhere(self, state: _State) -> Record | None:
        """The record of a cell that another command on this folder has brought to an end in the meantime."""
        if state.job.kind != "cell" or not state.elsewhere:
            return None
        record = finished(state.job.id, state.job.spec, self.place.out, complete=False)
        if record is None or record.status == "interrupted":
            return None
        return record if record.status == "complete" or (record.provenance.finished or "") >= self._began else None

    # -- ending ------------------------------------------------------------------------------------------------------

    def _over(self, event: Ended) -> Iterator[Record]:
        state = self._running.pop(event.job)
        job = state.job
        if event.how == "no_room":
            raise OSError(int(event.detail), os.strerror(int(event.detail)))
        if event.how == "usage" and (job.kind in ("load", "cell")):
            raise UsageError(event.detail)
        if event.how == "busy":
            self._again(state, ASK_AGAIN)
            state.elsewhere = True
        elif event.how in ("crashed", "interrupted"):
            yield from self._retry(state, event.detail or event.how)
        elif event.how in ("failed", "usage"):
            yield from self._give_up(state, event.detail)
        else:
            self.watcher.ended(job, event.how, event.detail)
            if job.kind == "cell":
                record = finished(job.id, job.spec, self.place.out, complete=False)
                if record is not None:
                    yield record
                else:  # cut short on the disk since
                    yield from self._retry(state, "its record is gone")

    def _retry(self, state: _State, reason: str) -> Iterator[Record]:
        state.tries += 1
        if state.tries > self.rules.retries:
            yield from self._give_up(state, f"{reason} ({state.tries} times)")
        else:
            self.watcher.said(state.job, f"{reason}; trying again", 0, 0)
            self._again(state, self.rules.pause * 2 ** (state.tries - 1))

    def _again(self, state: _State, pause: float) -> None:
        state.not_before = time.monotonic() + pause
        self._waiting[state.job.id] = state
        self.watcher.ended(state.job, "busy", "")

    def _overdue(self) -> Iterator[Record]:
        limit, now = self.rules.timeout, time.monotonic()
        for state in list(self._running.values()) if limit is not None else ():
            if now - state.started > (limit or 0):
                del self._running[state.job.id]
                self.executor.stop(state.job.id)
                yield from self._give_up(state, f"it did not end within {limit:g} s (--timeout)")

    def _give_up(self, state: _State, reason: str) -> Iterator[Record]:
        """A cell is recorded as failed; a shared piece takes along the cells that need it."""
        job = state.job
        if job.kind != "cell":
            self.watcher.ended(job, "failed", reason)
            for other in self._waiting.values():
                lost = job.id in other.job.needs or (
                    job.kind == "load" and other.job.spec["model"] == job.spec["model"]
                )
                if lost and other.failed is None:
                    other.failed = f"{job.title}: {reason}"
            return
        with self._claims.held(job.id) as mine:
            if not mine:
                self._again(state, ASK_AGAIN)
                return
            record = give_up(Spec.parse(job.spec, "spec"), reason, out=self.place.out, data_dir=self.place.data_dir)
        self.watcher.ended(job, "done", f"{record.status}: {record.status_reason}")
        yield record
