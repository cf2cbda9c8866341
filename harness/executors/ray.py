"""Jobs on a Ray cluster: one that is there, or one that is started here and ends with the command.

Ray places jobs by their resources and says when a process or machine is gone; the order, the retries and the timeouts
are the scheduler's. Files go by path where the machines share a file system; else what jobs share travels through
Ray's object store, and a cell's files come back with its result.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from harness.errors import UsageError
from harness.executors.base import Ended, Event, Place, Work
from harness.executors.local import PRELOAD, in_own_process
from harness.executors.work import work
from harness.planning.claims import Claims
from harness.planning.plan import Job
from harness.progress import Progress

Storage = Literal["shared", "objects"]
COUNT_AGAIN = 2.0
"""Seconds between two looks at the machines of the cluster."""
LOST = 60.0
"""Seconds without any machine after which the cluster is gone: jobs would wait for one for ever."""
GRACE = 10.0
"""Seconds until a job that was cancelled must be gone."""


@dataclass
class _Running:
    job: Job
    result: Any
    parcel: Any
    claim: ExitStack = field(default_factory=ExitStack)


class RayExecutor:
    """See `harness.executors.base.Executor`."""

    def __init__(self, place: Place, resources: Any, *, slots: int | None = None, address: str | None = None,
                 storage: Storage = "shared", run: Work = work, fresh: bool = True,
                 preload: Iterable[str] = PRELOAD) -> None:  # fmt: skip
        """Connect, or start a cluster.

        Args:
            place: where jobs find and leave their files; the same paths on every machine.
            resources: `harness.executors.resources.Resources` of one job.
            slots: jobs at once; None: as many as the machines hold.
            address: of the cluster; None: `RAY_ADDRESS`, else one is started here.
            storage: see the module.
            run: what is done for a job.
            fresh: a process a job, so that memory goes back with it; False does jobs in Ray's own workers.
            preload: modules that every machine imports once, and each job's process then has.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing touches the network unless asked
        os.environ.setdefault("RAY_worker_niceness", "0")  # of a cluster started here: jobs are what it is for
        import ray

        self._ray, self._place, self._resources = ray, place, resources
        self._given, self._storage = slots, storage
        self._run = partial(in_own_process, run, tuple(preload)) if fresh else run
        self._ours = not ray.is_initialized()
        if self._ours:
            where = address or os.environ.get("RAY_ADDRESS") or "local"
            here: dict[str, Any] = (
                {"_node_ip_address": "127.0.0.1", "include_dashboard": False} if where == "local" else {}
            )
            ray.init(address=where, log_to_driver=False, logging_level="ERROR", **here)
        self._remote = ray.remote(_on_machine)
        self._running: dict[str, _Running] = {}
        self._parcels: dict[str, Any] = {}
        self._counted, self._count, self._alive = 0.0, 0, time.monotonic()

    @property
    def slots(self) -> int:
        """See `Executor`: what the machines that are there now hold.

        Raises:
            UsageError: there has been none for `LOST` seconds.
        """
        now = time.monotonic()
        if now - self._counted > COUNT_AGAIN:
            machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
            self._counted, self._count = now, sum(self._resources.fits(machine) for machine in machines)
            self._alive = now if machines else self._alive
            if now - self._alive > LOST:
                for running in self._running.values():
                    running.claim.close()
                self._running.clear()  # there is nobody to stop them
                raise UsageError("no machine of the Ray cluster is left; finished cells are kept: give the command "
                                 "again, with a cluster that runs")  # fmt: skip
        return self._count if self._given is None else min(self._given, self._count)

    def start(self, job: Job) -> None:
        """See `Executor`."""
        claim = ExitStack()
        if self._storage == "objects":  # the job's machine does not see our folder
            claim.enter_context(Claims(self._place.out, self._place.claims).held(job.id))
        needs = [self._parcels[name] for name in job.needs if name in self._parcels]
        options = {"num_cpus": self._resources.cpus, "num_gpus": self._resources.gpus, "num_returns": 2,
                   "max_retries": 0, "name": job.title}  # fmt: skip
        if self._resources.memory:
            options["memory"] = self._resources.memory
        result, parcel = self._remote.options(**options).remote(
            job, self._place, self._run, self._storage, _environment(), *needs
        )
        self._running[job.id] = _Running(job, result, parcel, claim)

    def poll(self, seconds: float) -> list[Event]:
        """See `Executor`; raises what `slots` does."""
        if not self.slots or not self._running:
            time.sleep(seconds)
            return []
        by_result = {running.result: running for running in self._running.values()}
        ready, _ = self._ray.wait(list(by_result), num_returns=1, timeout=seconds)
        return [self._end(by_result[result]) for result in ready]

    def stop(self, job: str) -> None:
        """See `Executor`."""
        running = self._running.pop(job)
        self._ray.cancel(running.result, force=True)
        self._ray.wait([running.result], timeout=GRACE)
        running.claim.close()

    def close(self) -> None:
        """See `Executor`."""
        for job in list(self._running):
            self.stop(job)
        self._parcels.clear()
        if self._ours:
            self._ray.shutdown()

    def _end(self, running: _Running) -> Ended:
        from ray.exceptions import RayError, RayTaskError

        job = running.job
        del self._running[job.id]
        with running.claim:
            try:
                ended: Ended = self._ray.get(running.result)
                if self._storage == "objects":
                    self._receive(running, ended)
            except RayTaskError as error:
                return Ended(job=job.id, how="failed", detail=" ".join(str(error.cause).split())[:2000])
            except RayError as error:  # a worker, a machine or an object is gone: Ray's matter, not the job's
                for name in job.needs:  # what cannot be had any more the job makes itself
                    self._parcels.pop(name, None)
                return Ended(
                    job=job.id, how="crashed", detail=f"{type(error).__name__}: its process or machine is gone"
                )
        return ended

    def _receive(self, running: _Running, ended: Ended) -> None:
        """Keep a piece for those who need it; put a cell's files where the others are."""
        if ended.how != "done":
            return
        if running.job.kind != "cell":
            self._parcels[running.job.id] = running.parcel
            return
        from harness.executors.parcels import unpack
        from harness.records.merge import copy_cell

        with tempfile.TemporaryDirectory(dir=self._place.out, prefix=".arrived-") as name:
            unpack(self._ray.get(running.parcel), Path(name))
            copy_cell(Path(name) / "cells" / running.job.id, self._place.out / "cells" / running.job.id)


def _on_machine(job: Job, place: Place, run: Work, storage: Storage, environment: dict[str, str],
                *parcels: bytes) -> tuple[Ended, bytes]:  # fmt: skip
    """In a worker: do one job; returns how it ended and, without a shared file system, what it made."""
    from harness.quiet import quiet_libraries

    os.environ.update(environment)
    quiet_libraries()
    if storage == "shared":
        return run(job, place, Progress(quiet=True)), b""
    with _own_place(place) as own:
        return _with_parcels(job, own, run, parcels)


def _with_parcels(job: Job, own: Place, run: Work, parcels: tuple[bytes, ...]) -> tuple[Ended, bytes]:
    from harness.executors.parcels import add_entries, pack

    for parcel in parcels:
        add_entries(parcel, own.cache)
    before = _entries(own.cache)
    ended = run(job, own, Progress(quiet=True))
    if ended.how != "done":
        return ended, b""
    if job.kind == "cell":
        return ended, pack([own.out / "cells" / job.id], own.out)
    return ended, pack(_entries(own.cache) - before, own.cache)


@contextmanager
def _own_place(place: Place) -> Iterator[Place]:
    """Folders of this job alone."""
    with tempfile.TemporaryDirectory(prefix="lockbench-") as name:
        yield replace(place, out=Path(name) / "out", cache=Path(name) / "cache", claims="auto")


def _entries(cache: Path) -> set[Path]:
    return {marker.parent for marker in cache.glob("*/*/entry.json")}


def _environment() -> dict[str, str]:
    """What of our environment a job depends on."""
    kept = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return {key: value for key, value in os.environ.items()
            if key in kept or (key.startswith("HARNESS_") and key != "HARNESS_OUT")}  # fmt: skip
