"""The executor that is no executor: jobs run here, one after the other. For debuggers, notebooks and tests."""

from __future__ import annotations

from harness.executors.base import Event, Place, Said, Work
from harness.executors.work import work
from harness.planning.plan import Job
from harness.progress import Progress


class _Telling(Progress):
    """Progress as events; they are seen when the job is over."""

    def __init__(self, job: str, events: list[Event]) -> None:
        super().__init__(quiet=True)
        self._job, self._events = job, events

    def note(self, text: str) -> None:
        """See `Progress`."""
        self._events.append(Said(job=self._job, text=text))


class InlineExecutor:
    """See `harness.executors.base.Executor`. A job that hangs or crashes takes this process along."""

    slots = 1

    def __init__(self, place: Place, run: Work = work) -> None:
        self._place, self._run = place, run
        self._waiting: Job | None = None

    def start(self, job: Job) -> None:
        """See `Executor`."""
        self._waiting = job

    def poll(self, seconds: float) -> list[Event]:
        """See `Executor`."""
        if self._waiting is None:
            return []
        job, self._waiting = self._waiting, None
        events: list[Event] = []
        events.append(self._run(job, self._place, _Telling(job.id, events)))
        return events

    def stop(self, job: str) -> None:
        """See `Executor`: what runs here cannot be stopped from here."""
        self._waiting = None

    def close(self) -> None:
        """See `Executor`."""
        self._waiting = None
