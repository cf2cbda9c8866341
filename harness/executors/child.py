"""The life of a job's process: it reports to the command that started it, and ends with it, however that one ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.connection import Connection

from harness.executors.base import Place, Said, Work
from harness.lifeline import die_with_parent
from harness.planning.plan import Job
from harness.progress import Progress

TELL_EVERY = 0.2
"""Seconds between two reports of one job's progress."""


class Telling(Progress):
    """Progress that is sent to the command, which owns the terminal."""

    def __init__(self, job: str, pipe: Connection) -> None:
        super().__init__(quiet=True)
        self._job, self._pipe, self._told = job, pipe, 0.0

    def __call__(self, label: str, done: int, total: int) -> None:
        """See `Progress`."""
        now = time.monotonic()
        if now - self._told >= TELL_EVERY:
            self._told = now
            self._pipe.send(Said(job=self._job, text=label, done=done, total=total))

    def note(self, text: str) -> None:
        """See `Progress`."""
        self._pipe.send(Said(job=self._job, text=text))


def live(job: Job, place: Place, run: Work, pipe: Connection) -> None:
    """Do one job."""
    os.setsid()  # one group with whatever the job starts, which is stopped with it; a terminal's ^C is the command's
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _interrupted)
    end_with_parent()
    from harness.quiet import bars_without_semaphores, quiet_libraries, stdout_kept

    quiet_libraries()
    bars_without_semaphores()
    with stdout_kept():
        pipe.send(run(job, place, Telling(job.id, pipe)))
    pipe.close()


def end_with_parent() -> None:
    """Make this process, and its group, end when the process that asked for it does.

    The kernel ends it with the server that it was forked from, even in the middle of a library's loop; a thread sees
    the end of the command itself, and takes the rest of the group along.
    """
    parent = multiprocessing.parent_process()
    die_with_parent()

    def watch() -> None:
        if parent is not None:
            parent.join()
            kill_group(os.getpid())

    threading.Thread(target=watch, daemon=True).start()


def kill_group(leader: int) -> None:
    """Kill a process and its group, if they are there."""
    for kill in (os.killpg, os.kill):
        try:
            kill(leader, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt
