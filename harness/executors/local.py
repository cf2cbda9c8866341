"""Jobs in local processes, one a job: memory goes back to the system with it, and a crash is its own.

The processes are forked from one server that has imported the libraries and done nothing else (multiprocessing's
`forkserver`), so that a job costs milliseconds to start and not the seconds that importing torch takes.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import connection
from multiprocessing.context import ForkServerProcess
from typing import Any

from harness import probes
from harness.executors.base import Ended, Event, Place, Work
from harness.executors.child import kill_group, live
from harness.executors.work import work
from harness.planning.plan import Job
from harness.progress import Progress

PATIENCE = 5.0
"""Seconds that a job has to leave in good order when all is stopped."""
DEVICE_FREE = ("harness.executors.server", "torch", "numpy", "scipy.stats", "pyarrow.parquet", "transformers",
               "transformers.modeling_utils", "transformers.generation.utils", "tokenizers", "accelerate",
               "harness.executors.child", "harness.cell", "harness.workshop", "harness.planning.pieces",
               "harness.loop.run", "harness.loop.engine", "harness.finetune", "harness.models.load",
               "harness.models.save", "harness.utility.fidelity", "harness.meters.energy",
               "torch._inductor.config")  # fmt: skip
"""Modules that nearly every cell imports; none touches a device, or starts a thread that a fork would miss (Arrow's
pools start anew in a child)."""
PRELOAD = (*DEVICE_FREE, "peft", "lm_eval.evaluator", "harness.utility.lm_eval_bridge")
"""And those that import bitsandbytes, which asks a GPU, where there is one, what it is: no process that is forked after
that can use it."""


@dataclass
class _Running:
    process: ForkServerProcess
    pipe: connection.Connection
    started: float


class LocalExecutor:
    """See `harness.executors.base.Executor`."""

    def __init__(self, place: Place, slots: int = 1, *, run: Work = work, preload: Iterable[str] = PRELOAD) -> None:
        """Make the executor; the server starts with the first job.

        Args:
            place: where jobs find and leave their files.
            slots: processes at once.
            run: what is done for a job.
            preload: modules that the server imports; on a machine with a GPU only those of `DEVICE_FREE`.
        """
        self.slots = slots
        self._place, self._run = place, run
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(
            [name for name in preload if name in DEVICE_FREE or not probes.gpu_files()])  # fmt: skip
        self._running: dict[str, _Running] = {}
        self._unstarted: list[Event] = []

    def start(self, job: Job) -> None:
        """See `Executor`."""
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=live, args=(job, self._place, self._run, theirs), name=job.id)
        try:
            process.start()
        except (OSError, EOFError) as error:  # the server was killed in this moment; another one starts with the next
            ours.close()
            self._unstarted.append(Ended(job=job.id, how="crashed", detail=f"its process did not start: {error!r}"))
            return
        finally:
            theirs.close()
        self._running[job.id] = _Running(process, ours, time.monotonic())

    def poll(self, seconds: float) -> list[Event]:
        """See `Executor`."""
        if self._unstarted:
            events, self._unstarted = self._unstarted, []
            return events
        waited: dict[Any, str] = {}
        for job, running in self._running.items():
            waited |= {running.pipe: job, running.process.sentinel: job}
        ready = connection.wait(list(waited), seconds)
        return [event for job in dict.fromkeys(waited[one] for one in ready) for event in self._hear(job)]

    def stop(self, job: str) -> None:
        """See `Executor`."""
        running = self._running.pop(job)
        if running.process.pid is not None:
            kill_group(running.process.pid)
        _release(running)

    def close(self) -> None:
        """See `Executor`."""
        for running in self._running.values():
            running.process.terminate()
        deadline = time.monotonic() + PATIENCE
        for job in list(self._running):
            running = self._running[job]
            while running.process.is_alive() and time.monotonic() < deadline:
                self._drain(running)  # a job that cannot get rid of its last words does not end
                running.process.join(0.05)
            self.stop(job)

    def _hear(self, job: str) -> list[Event]:
        running = self._running[job]
        events = self._drain(running)
        ended = any(isinstance(event, Ended) for event in events)
        if not ended and running.process.is_alive():
            return events
        running.process.join(PATIENCE)
        if not ended:
            events += self._drain(running)
            ended = any(isinstance(event, Ended) for event in events)
        code = running.process.exitcode
        self.stop(job)
        if not ended:
            seconds = time.monotonic() - running.started
            events.append(Ended(job=job, how="crashed", detail=_death(code), seconds=seconds))
        return events

    @staticmethod
    def _drain(running: _Running) -> list[Event]:
        events: list[Event] = []
        try:
            while running.pipe.poll():
                events.append(running.pipe.recv())
        except (EOFError, OSError):  # it closed its end, or died in the middle of a word
            pass
        except Exception as error:  # what a killed process had sent half of does not unpickle
            events.append(
                Ended(job=running.process.name, how="crashed", detail=f"its last words are garbled: {error!r}")
            )
        return events


def in_own_process(run: Work, preload: Iterable[str], job: Job, place: Place, progress: Progress) -> Ended:
    """`run` as a `Work` that is done in a process of its own, with the environment that this one has now.

    For a cluster's workers, which stay: memory goes back with the process, and it starts as fast as a local job does.
    The server that it is forked from is of this worker, and was started with the environment of another job.
    """
    executor = LocalExecutor(place, run=partial(_with_environment, run, dict(os.environ)), preload=preload)
    with _no_main():
        executor.start(job)
    try:
        while True:
            for event in executor.poll(PATIENCE):
                if isinstance(event, Ended):
                    return event
                progress.note(event.text) if not event.total else progress(event.text, event.done, event.total)
    finally:
        executor.close()


@contextmanager
def _no_main() -> Iterator[None]:
    """Without the file of `__main__`: a new process would run it first, and a worker's is the cluster's library."""
    main = vars(sys.modules["__main__"])
    file = main.pop("__file__", None)
    try:
        yield
    finally:
        if file is not None:
            main["__file__"] = file


def _with_environment(run: Work, environment: dict[str, str], job: Job, place: Place, progress: Progress) -> Ended:
    os.environ.clear()
    os.environ.update(environment)  # which GPU, how many threads: before a library looks
    return run(job, place, progress)


def _release(running: _Running) -> None:
    running.process.join()
    running.process.close()
    running.pipe.close()


def _death(code: int | None) -> str:
    if code is None or code >= 0:
        return f"its process ended with status {code} and no result"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    hint = "; the kernel does that when memory runs out" if -code == signal.SIGKILL else ""
    return f"its process was killed by {name}{hint}"
