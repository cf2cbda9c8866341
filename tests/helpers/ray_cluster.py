"""A matrix of cheap cells on a Ray cluster of two machines (two raylets here), one of which is lost in the middle.

    python tests/helpers/ray_cluster.py FOLDER shared|objects

Run in a process of its own: Ray leaves threads behind. Prints what happened as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}
SLEEPS = (0.5, 4.0, 4.0, 4.0)
"""Seconds of each cell: when the first is over, two are running for a while, one on each machine."""


def main() -> None:
    """Start the cluster, run the matrix, take a machine away that is at work."""
    from threading import Timer

    from cheap_cells import cheap_grid, cheap_model
    from ray.cluster_utils import Cluster

    from harness.executors.base import Place
    from harness.executors.ray import RayExecutor
    from harness.executors.resources import Resources
    from harness.planning.grid import plan, run_matrix, split_file
    from harness.planning.live import Board
    from harness.planning.scheduler import Rules

    folder, storage = Path(sys.argv[1]), sys.argv[2]
    model = cheap_model(folder / "model")
    place = Place(out=folder / "out", cache=folder / "cache")
    small = {"object_store_memory": 80 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **small})
    other = cluster.add_node(num_cpus=1, **small)
    cells = plan(*split_file(cheap_grid(model, [{"number": n, "sleep": s} for n, s in enumerate(SLEEPS)])))
    executor = RayExecutor(place, Resources(), address=cluster.address, storage=storage)  # type: ignore[arg-type]
    seen = {"slots": executor.slots, "statuses": [], "retries": 0}

    class Counting(Board):
        def said(self, job: object, text: str, done: int, total: int) -> None:
            seen["retries"] += "trying again" in text

    for index, record in enumerate(run_matrix(cells, place=place, executor=executor, watcher=Counting(quiet=True),
                                              rules=Rules(pause=0.1))):  # fmt: skip
        seen["statuses"].append(record.status)
        if index == 0:
            Timer(2.0, lambda: cluster.remove_node(other, allow_graceful=False)).start()
    cluster.shutdown()
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
