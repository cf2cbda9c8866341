"""The only machine of a Ray cluster is lost while a job runs on it: the executor says so, and ends.

    python tests/helpers/ray_lost.py FOLDER

Run in a process of its own: Ray leaves threads behind. Prints what happened as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "HF_HUB_OFFLINE": "1"}


def main() -> None:
    """Lose the machine, and wait for what the executor says."""
    import ray
    from processes import command_line, descendants
    from ray_processes import hang as importable

    from harness.errors import UsageError
    from harness.executors import ray as executors
    from harness.executors.base import Place
    from harness.executors.resources import Resources
    from harness.planning.plan import Job

    executors.LOST = 2.0
    folder = Path(sys.argv[1])
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
             object_store_memory=80 << 20)  # fmt: skip
    executor = executors.RayExecutor(Place(out=folder, cache=folder / "cache"), Resources(), run=importable, preload=[])
    executor.start(Job(id="hangs", kind="base", spec={"sleep": 600.0}, title="hangs"))
    while not (folder / "hangs.json").exists():
        executor.poll(0.1)
    for pid in descendants(os.getpid()):
        if b"/raylet" in command_line(pid).split(b"\0")[0]:
            os.kill(pid, signal.SIGKILL)
    said, deadline = "", time.monotonic() + 120
    while not said and time.monotonic() < deadline:
        try:
            executor.poll(0.2)
        except UsageError as error:
            said = str(error)
    executor.close()
    print(json.dumps({"said": said}), flush=True)
    os._exit(0)  # what is left of the cluster is in nobody's way


if __name__ == "__main__":
    main()
