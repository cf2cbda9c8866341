"""What the machinery costs: seconds a job beside its work, and how many sleeping jobs Ray runs at once.

    python benchmarks/executors.py local|matrix|ray-jobs [--jobs 40]
    python benchmarks/executors.py ray [--workers 16,64] [--seconds 20]

`local`: jobs that do nothing, in processes of their own, against the time to start and end such a process by hand.
`matrix`: cells of two seconds, against the time inside the jobs. `ray`: jobs that sleep, on a cluster with as
many logical CPUs as workers; the speed-up is over one after the other. `ray-jobs`: `local`'s jobs, on a worker of Ray.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness.executors.base import Ended, Executor, Place
from harness.planning.live import Board
from harness.planning.plan import Job
from harness.planning.scheduler import Rules, Scheduler
from harness.progress import Progress


def nothing(job: Job, place: Place, progress: Progress) -> Ended:
    """Work that is none."""
    return Ended(job=job.id, how="done")


def sleep(job: Job, place: Place, progress: Progress) -> Ended:
    """Work that waits."""
    time.sleep(float(job.spec["sleep"]))
    return Ended(job=job.id, how="done", seconds=float(job.spec["sleep"]))


def jobs(count: int, **spec: Any) -> list[Job]:
    """Jobs that need nothing."""
    return [Job(id=f"base-{number}", kind="base", spec=spec, title=f"job {number}") for number in range(count)]


def seconds(todo: list[Job], executor: Executor, place: Place) -> float:
    """Wall-clock seconds of a run."""
    began = time.perf_counter()
    for _ in Scheduler(todo, executor, place, Board(quiet=True), Rules()).run():
        pass
    return time.perf_counter() - began


def local(place: Place, count: int) -> Iterator[tuple[str, Any]]:
    """Overhead of the local executor."""
    from harness.executors.local import LocalExecutor

    seconds(jobs(1), LocalExecutor(place, 1, run=nothing), place)  # the server starts
    context = multiprocessing.get_context("forkserver")
    began = time.perf_counter()
    for _ in range(count):
        process = context.Process(target=time.sleep, args=(0,))
        process.start()
        process.join()
        process.close()
    bare = (time.perf_counter() - began) / count
    ours = seconds(jobs(count), LocalExecutor(place, 1, run=nothing), place) / count
    yield "jobs", count
    yield "seconds_a_bare_process", round(bare, 4)
    yield "seconds_a_job", round(ours, 4)
    yield "overhead_seconds", round(ours - bare, 4)


def matrix(place: Place, count: int) -> Iterator[tuple[str, Any]]:
    """Wall-clock of a matrix over the sum of what its jobs took inside."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
    from cheap_cells import PACKAGE, cheap_grid, cheap_model

    os.environ["PYTHONPATH"] = str(PACKAGE)
    sys.path.insert(0, str(PACKAGE))
    from harness.executors.local import PRELOAD, LocalExecutor
    from harness.executors.slots import modules
    from harness.planning.grid import plan, split_file
    from harness.planning.plan import jobs as jobs_of

    cells = plan(
        *split_file(cheap_grid(cheap_model(place.out / "model"), [{"number": n, "sleep": 1.0} for n in range(count)]))
    )
    inside: list[float] = []

    class Timed(LocalExecutor):
        def poll(self, patience: float) -> list[Any]:
            events = super().poll(patience)
            inside.extend(event.seconds for event in events if isinstance(event, Ended))
            return events

    total = seconds(jobs_of(cells), Timed(place, 1, preload=[*PRELOAD, *modules(cells, None)]), place)
    yield "cells", len(cells)
    yield "jobs", len(inside)
    yield "matrix_seconds", round(total, 2)
    yield "seconds_inside_jobs", round(sum(inside), 2)
    yield "ratio", round(total / sum(inside), 3)


@contextmanager
def cluster(cpus: int) -> Iterator[None]:
    """A Ray cluster on this machine."""
    import ray as library

    library.init(address="local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
                 object_store_memory=80 << 20)  # fmt: skip
    try:
        yield
    finally:
        library.shutdown()


def ray_jobs(place: Place, count: int) -> Iterator[tuple[str, Any]]:
    """Seconds a job that does nothing, in a process of its own on one worker."""
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    import executors as importable  # in a script, functions have no name that a worker finds

    from harness.executors.ray import RayExecutor
    from harness.executors.resources import Resources

    with cluster(1):
        seconds(jobs(1), RayExecutor(place, Resources(), run=importable.nothing), place)  # its server starts
        took = seconds(jobs(count), RayExecutor(place, Resources(), run=importable.nothing), place)
    yield "jobs", count
    yield "seconds_a_job", round(took / count, 4)


def ray(place: Place, workers: list[int], each: float, rounds: int = 4) -> Iterator[tuple[str, Any]]:
    """Speed-up of sleeping jobs."""
    from harness.executors.ray import RayExecutor
    from harness.executors.resources import Resources

    with cluster(max(workers)):
        for count in workers:
            made = {"slots": count, "run": sleep, "fresh": False}
            seconds(jobs(count, sleep=each), RayExecutor(place, Resources(), **made), place)  # its processes start
            took = seconds(jobs(count * rounds, sleep=each), RayExecutor(place, Resources(), **made), place)
            speedup = count * rounds * each / took
            yield str(count), {"jobs": count * rounds, "seconds": round(took, 2), "speedup": round(speedup, 2),
                               "of_ideal": round(speedup / count, 3)}  # fmt: skip


def main() -> None:
    """Measure, print, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["local", "matrix", "ray", "ray-jobs"])
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--workers", default="16,64")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("-o", "--output", type=Path, help="JSON; other figures in it are kept")
    args = parser.parse_args()
    with TemporaryDirectory(prefix="executors-") as name:
        place = Place(out=Path(name) / "out", cache=Path(name) / "cache")
        if args.what == "ray":
            figures = dict(ray(place, [int(count) for count in args.workers.split(",")], args.seconds))
        else:
            figures = dict({"local": local, "matrix": matrix, "ray-jobs": ray_jobs}[args.what](place, args.jobs))
    print(json.dumps(figures, indent=1))
    if args.output:
        before = json.loads(args.output.read_text()) if args.output.exists() else {}
        args.output.write_text(json.dumps({**before, args.what: figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
