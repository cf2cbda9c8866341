"""What a matrix shows while it runs: a table with a line a running job on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from harness.planning.plan import Job


@dataclass
class _Line:
    job: Job
    since: float
    label: str = ""
    done: int = 0
    total: int = 0


@dataclass
class Board:
    """See `harness.planning.scheduler.Watcher`; writes to stderr."""

    quiet: bool = False
    total: int = 0
    """Cells of the matrix, those found complete included."""
    finished: int = 0
    """Cells with a record."""
    _lines: dict[str, _Line] = field(default_factory=dict)
    _waiting: set[str] = field(default_factory=set)
    _live: Any = None
    _began: float = field(default_factory=time.monotonic)
    _own: int = 0

    @contextmanager
    def showing(self) -> Iterator[Board]:
        """Draw the table while inside, where stderr is a terminal."""
        if self.quiet or not sys.stderr.isatty():
            yield self
            return
        from rich.console import Console
        from rich.live import Live

        with Live(
            get_renderable=self.table, console=Console(stderr=True), refresh_per_second=4, transient=True
        ) as live:
            self._live = live
            try:
                yield self
            finally:
                self._live = None

    def note(self, text: str) -> None:
        """One line that stays."""
        if self.quiet:
            return
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def plan(self, jobs: Sequence[Job]) -> None:
        """See `Watcher`."""
        self._waiting = {job.id for job in jobs}
        self.finished = max(0, self.total - sum(job.kind == "cell" for job in jobs))  # the others were found complete

    def started(self, job: Job) -> None:
        """See `Watcher`."""
        self._waiting.discard(job.id)
        self._lines[job.id] = _Line(job, time.monotonic())

    def said(self, job: Job, text: str, done: int, total: int) -> None:
        """See `Watcher`."""
        line = self._lines.get(job.id)
        if total and line is not None:
            line.label, line.done, line.total = text, done, total
        elif not total:
            self.note(f"    {text}" if self._live is None else f"{job.title}: {text}")

    def ended(self, job: Job, how: str, detail: str) -> None:
        """See `Watcher`."""
        line = self._lines.pop(job.id, None)
        if how == "busy":
            self._waiting.add(job.id)
            return
        self._waiting.discard(job.id)
        took = f" ({time.monotonic() - line.since:.1f} s)" if line else ""
        if job.kind == "cell":
            self.finished, self._own = self.finished + 1, self._own + (line is not None)
            self.note(f"[{self.finished}/{self.total}] {job.title}: {detail}{took}  ({job.id})")
        else:
            self.note(f"{job.title}: {how}{', ' + detail if detail else ''}{took}, for {job.cells} cells")

    def tick(self) -> None:
        """See `Watcher`; the table draws itself."""

    def table(self) -> Table:
        """The running jobs, and how much is left."""
        from rich.table import Table

        left = f"{self.finished} of {self.total} cells, {len(self._waiting)} jobs waiting{self._remaining()}"
        table = Table("running", "for", "at", caption=left, expand=False, box=None, caption_justify="left")
        for line in list(self._lines.values()):
            at = f"{line.label} {line.done}/{line.total}" if line.total else ""
            table.add_row(line.job.title, f"{time.monotonic() - line.since:.0f} s", at)
        return table

    def _remaining(self) -> str:
        if not self._own:
            return ""
        seconds = (time.monotonic() - self._began) / self._own * (self.total - self.finished)
        return f", about {duration(seconds)} left"


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
