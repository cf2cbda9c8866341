"""How long the leaderboard page takes: to build from many records, and to show itself in headless Chromium.

    python benchmarks/board_page.py [--records 10000] [--repeats 3] [-o docs/data/board_page.json]

The records are made up (`record_factory.py`): locks by attacks by seeds on several models and tasks, written as
`harness run` would. Each build is a process of its own: the first with an empty cache, one more on the same records,
and one after a record is gone. Seconds are of a processor: they depend less on what else the machine does.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
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
sys.path.insert(0, str(ROOT / "tests" / "helpers"))

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


def build(out: Path, cache: Path, file: Path) -> dict[str, float]:
    """Seconds of a processor by step of `harness leaderboard --format html`, from the process's start.

    With them the seconds of the clock since this was called, and the most memory, in bytes.
    """
    begun, took = time.perf_counter(), {}
    last = 0.0

    def step(name: str) -> None:
        nonlocal last
        now = time.process_time()
        took[name], last = now - last, now

    from leaderboards.html.page import page
    from leaderboards.index import Index
    from leaderboards.load import load_results, uncollected
    from leaderboards.ranking import rank

    def made() -> None:
        with Index(cache) as index:
            results = load_results(out, utility=False, index=index)
            step("read")
            rows = rank(results.cells, index)
            step("rank")
            file.write_text(page(results, rows=rows) + "\n")
            step("page")

    step("start")
    with uncollected():
        made()
    step("keep")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {**took, "all": time.process_time(), "wall": time.perf_counter() - begun, "memory": memory}


def builds(out: Path, cache: Path, file: Path, repeats: int) -> dict[str, dict[str, float]]:
    """`build` in processes of their own: with an empty cache, again (the fastest), and after one record is gone."""

    def child() -> dict[str, float]:
        command = [sys.executable, __file__, "--build", str(out), str(cache), "-o", str(file)]
        found: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        return found

    first, text = child(), file.read_bytes()
    again = [child() for _ in range(repeats)]
    if file.read_bytes() != text:
        sys.exit("the second build is another page than the first")
    shutil.rmtree(min((out / "cells").iterdir()))
    changed = child()
    file.write_bytes(text)
    return {"first": first, "again": min(again, key=lambda found: found["all"]), "changed": changed}


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
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/data/board_page.json"))
    parser.add_argument("--build", type=Path, nargs=2, metavar=("RESULTS", "CACHE"), help="only one build, to OUTPUT")
    args = parser.parse_args()
    if args.build:
        results, cache = args.build
        print(json.dumps(build(results, cache, args.output)))
        return
    with tempfile.TemporaryDirectory(prefix="board-") as folder:
        out, file = Path(folder) / "results", Path(folder) / "board.html"
        write_records(out, args.records)
        found: dict[str, Any] = {"records": args.records, "builds": builds(out, Path(folder), file, args.repeats)}
        found["bytes"] = file.stat().st_size
        found["milliseconds"] = paint_milliseconds(file, args.repeats)
    args.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
