"""How long the leaderboard page takes: to build from many records, and to show itself in headless Chromium.

    python benchmarks/board_page.py [--records 10000] [--repeats 5] [-o docs/data/board_page.json]

The records are made up (`record_factory.py`): locks by attacks by seeds on several models and tasks, written as
`harness run` would. Each build is a process of its own: the first with an empty cache, one more on the same records,
and one after a record is gone. Seconds are of a processor: they depend less on what else the machine does.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]

from harness.threads import usable_cores  # noqa: E402

MODELS, TASKS, SEEDS, ATTACKS = 5, 4, 5, 10
"""Together with the locks they make the number of records."""


def write_records(out: Path, number: int) -> None:
    """So many cells below `out`. Most figures are those of a few cells; specs, items, bills of attacks all differ."""
    import numpy as np
    from record_factory import METRIC, make_cell

    from harness.files import canonical_json, sha256
    from harness.records.cell_files import ITEMS, LOG, RECORD
    from harness.records.items import write_items
    from harness.records.record import dumps
    from harness.records.record_files import seal_of

    patterns = [make_cell(recovery=0.1 * k, utility=0.97, seed=k) for k in range(10)]
    for index, (lock, attack, model, task, seed) in enumerate(_specs(number)):
        cell, rng = patterns[(lock * 7 + attack * 3 + model + task) % len(patterns)], np.random.default_rng(index)
        record = cell.record
        spec = {**record.spec, "model": {"name": f"model-{model}"}, "task": {"name": f"task-{task}"}, "seed": seed,
                "defense": {"name": "lock", "strength": lock},
                "attack": {"name": f"attack-{attack}", "learning_rate": 1e-3}}  # fmt: skip
        digest = hashlib.sha256(canonical_json(spec).encode()).hexdigest()[:16]
        folder = out / "cells" / digest
        folder.mkdir(parents=True)
        write_items(folder / ITEMS, [replace(row, score=row.score + rng.normal(0, 1e-3))
                                     if row.model == "attacked" and row.metric == METRIC else row
                                     for row in cell.items])  # fmt: skip
        (folder / LOG).write_text("log\n")
        files = {name: sha256(folder / name) for name in (ITEMS, LOG)}
        bill = record.cost.attack and record.cost.attack.model_copy(update={"seconds": float(rng.uniform(1, 1e4))})
        made = record.model_copy(update={"id": digest, "spec": spec,
                                         "cost": record.cost.model_copy(update={"attack": bill}),
                                         "provenance": record.provenance.model_copy(update={"files": files}),
                                         "model": record.model.model_copy(update={"name": f"model-{model}"}),
                                         "task": record.task.model_copy(update={"name": f"task-{task}"})})  # fmt: skip
        made = made.model_copy(update={"seal": seal_of(made.model_dump(mode="json"))})
        (folder / RECORD).write_text(dumps(made))
        if index % 1000 == 0:
            print(f"{index} records", file=sys.stderr)


def _specs(number: int) -> Iterator[tuple[int, int, int, int, int]]:
    for index, spec in enumerate(product(range(number), range(ATTACKS), range(MODELS), range(TASKS), range(SEEDS))):
        if index == number:
            return
        yield spec


def build(out: Path, cache: Path, file: Path, processes: int) -> dict[str, float]:
    """`harness leaderboard --format html` from its start to its end, as whoever types it waits for it.

    Seconds of the clock and of processors, over all of its processes, and the most memory of one of them, in bytes.
    """
    command = [sys.executable, "-m", "harness.cli.main", "leaderboard", str(out), "--format", "html", "-o", str(file),
               "--cache", str(cache)]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": str(processes)}
    begun = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=env)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = status
    if status:
        sys.exit(f"{' '.join(command)} failed")
    return {"wall": time.perf_counter() - begun, "processor": used.ru_utime + used.ru_stime,
            "memory": used.ru_maxrss * 1024}  # fmt: skip


def builds(out: Path, place: Path, file: Path, repeats: int) -> dict[str, list[dict[str, float]]]:
    """`build` with an empty cache by one process and by one a core, again, and after one record is gone."""
    cores, texts = usable_cores(), []

    def times(processes: int, cache: str) -> list[dict[str, float]]:
        found = []
        for _ in range(repeats):
            shutil.rmtree(place / cache, ignore_errors=True)
            found.append(build(out, place / cache, file, processes))
            texts.append(file.read_bytes())
        return found

    found = {"alone": times(1, "alone"), "first": times(cores, "cache")}
    found["again"] = [build(out, place / "cache", file, cores) for _ in range(repeats)]
    if len({*texts, file.read_bytes()}) > 1:
        sys.exit("two builds of the same records are not the same page")
    shutil.rmtree(min((out / "cells").iterdir()))
    found["changed"] = [build(out, place / "cache", place / "changed.html", cores)]
    return found


def paint_milliseconds(file: Path, repeats: int) -> dict[str, float]:
    """First contentful paint, and until the ranking is there, from the start of navigation."""
    from playwright.sync_api import sync_playwright

    binary = shutil.which("chromium") or shutil.which("chromium-browser")
    if binary is None:
        sys.exit("no chromium here")
    found: dict[str, list[float]] = {"first_paint": [], "ranking": []}
    with sync_playwright() as playwright:
        for _ in range(repeats):
            browser = playwright.chromium.launch(executable_path=binary, args=["--no-sandbox"])
            view = browser.new_page()
            view.goto(file.resolve().as_uri())
            view.wait_for_selector("#ranking tbody tr")
            ready = view.evaluate("performance.timing.domContentLoadedEventEnd - performance.timing.navigationStart")
            paint = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
            while view.evaluate(paint) is None:
                time.sleep(0.02)
            found["first_paint"].append(view.evaluate(paint))
            found["ranking"].append(ready)
            browser.close()
    return {name: min(values) for name, values in found.items()}


def main() -> None:
    """Write the records, measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/data/board_page.json"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="board-") as folder:
        out, file = Path(folder) / "results", Path(folder) / "board.html"
        write_records(out, args.records)
        found: dict[str, Any] = {"records": args.records, "cores": usable_cores(),
                                 "builds": builds(out, Path(folder), file, args.repeats)}  # fmt: skip
        found["bytes"] = file.stat().st_size
        found["milliseconds"] = paint_milliseconds(file, args.repeats)
    args.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
