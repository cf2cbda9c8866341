"""What an executor is: it starts jobs, and tells what became of them. It decides nothing.

An executor knows places in which a job can run; which job is next, what is tried again and what is given up is the
scheduler's business, and so equal for all executors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from harness.planning.claims import Mode
from harness.planning.plan import Job
from harness.progress import Progress
from harness.tracking import Reporting

How = Literal["done", "outcome", "failed", "usage", "no_room", "busy", "interrupted", "crashed"]
"""How a job ended.

done: the piece is in the cache, the cell has its record. outcome: the piece ended in an outcome that each cell records
for itself (out of memory, over budget, unavailable). failed, usage, no_room: an error of the work, of the user, of the
disk. busy: another command is at it. interrupted: it was told to stop. crashed: its process or machine is gone.
"""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a job finds and leaves its files."""

    out: Path
    cache: Path
    data_dir: Path | None = None
    claims: Mode = "auto"
    reporting: Reporting = field(default=Reporting())
    """Where else curves and results are shown."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A job is over."""

    job: str
    how: How
    detail: str = ""
    """What went wrong, in one line; for a cell that is done, its status."""
    seconds: float = 0.0
    """Inside the job, without the start of its process."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """A job has a line for the log (`total` is 0), or is so far."""

    job: str
    text: str
    done: int = 0
    total: int = 0


Event = Ended | Said
Work = Callable[[Job, Place, Progress], Ended]
"""What is done for a job, wherever it runs; a function that a process finds by its name."""


class Executor(Protocol):
    """Runs jobs; not safe under threads."""

    @property
    def slots(self) -> int:
        """Jobs that can run at once."""

    def start(self, job: Job) -> None:
        """Start a job; returns at once (a first start may take as long as importing the libraries does)."""

    def poll(self, seconds: float) -> list[Event]:
        """What has happened since, after waiting at most so long for the first event; exactly one `Ended` a job."""

    def stop(self, job: str) -> None:
        """Kill a job and whatever it started; afterwards it is gone, and says nothing any more."""

    def close(self) -> None:
        """Stop all that runs, softly first, and release everything."""
