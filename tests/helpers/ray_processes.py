"""On a Ray cluster of one machine: a job that is stopped is gone, and the next one has a process of its own.

    python tests/helpers/ray_processes.py FOLDER

Run in a process of its own: Ray leaves threads behind. Prints what happened as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "HF_HUB_OFFLINE": "1"}

from harness.executors.base import Ended, Place
from harness.planning.plan import Job
from harness.progress import Progress


def hang(job: Job, place: Place, progress: Progress) -> Ended:
    """Leave a note of the process, and stay as long as the job says."""
    found = {"pid": os.getpid(), "parent": os.getppid(), "torch": "torch" in sys.modules,
             "offline": os.environ.get("HF_HUB_OFFLINE"), "gpus": os.environ.get("CUDA_VISIBLE_DEVICES")}  # fmt: skip
    path = place.out / f"{job.id}.json"
    path.with_suffix(".part").write_text(json.dumps(found))
    path.with_suffix(".part").rename(path)
    time.sleep(float(job.spec["sleep"]))
    return Ended(job=job.id, how="done")


def main() -> None:
    """Stop a job that hangs, then run two that end."""
    import ray
    from processes import alive
    from ray_processes import hang as importable

    from harness.executors.ray import RayExecutor
    from harness.executors.resources import Resources

    folder = Path(sys.argv[1])
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
             object_store_memory=80 << 20)  # fmt: skip
    executor = RayExecutor(Place(out=folder, cache=folder / "cache"), Resources(), run=importable, preload=["torch"])

    def job(name: str, sleep: float) -> Job:
        made = Job(id=name, kind="base", spec={"sleep": sleep}, title=name)
        executor.start(made)
        return made

    def note(name: str) -> dict[str, int]:
        while not (folder / f"{name}.json").exists():
            time.sleep(0.05)
        found: dict[str, int] = json.loads((folder / f"{name}.json").read_text())
        return found

    job("hangs", 3600)
    hanging = note("hangs")
    executor.stop("hangs")
    deadline = time.monotonic() + 60
    while any(alive(hanging[who]) for who in ("pid", "parent")) and time.monotonic() < deadline:
        time.sleep(0.05)
    gone = not any(alive(hanging[who]) for who in ("pid", "parent"))
    ends, notes = [], []
    for name in ("first", "second"):
        job(name, 0)
        while not (events := executor.poll(1)):
            continue
        ends += [event.how for event in events if isinstance(event, Ended)]
        notes.append(note(name))
    ray.shutdown()
    print(json.dumps({"gone": gone, "ends": ends, "notes": notes}))


if __name__ == "__main__":
    main()
