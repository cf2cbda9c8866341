"""Change published cells in every small way, and count what `harness verify` does not notice.

    python benchmarks/tamper.py [--cells 1] [--rows 5] [--seed 0] [-o docs/data/tamper.json]

Of some cells of every folder of `leaderboards/results`: each value of the record by its least change, each key and
element deleted and doubled; each column of some rows of the items, once as somebody careless would and once by a forger
who makes the digests and the seal anew (but not the score in a metric that no figure uses: nothing contradicts that
one). Exit status 1 if a change passes.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
from tampering import change_item, changes, forge, noticed

from harness.errors import UsageError
from harness.records.cell_files import ITEMS
from harness.records.items import COLUMNS, read_items
from harness.records.record_files import read_document, read_record
from leaderboards.verify import verify

RESULTS = Path(__file__).parents[1] / "leaderboards" / "results"


def found_out(folder: Path) -> bool:
    """Whether `harness verify` has anything to say of a folder of results."""
    try:
        return bool(verify(folder))
    except UsageError:  # not one cell of it can be read
        return True


def tamper(cell: Path, rows: int, rng: random.Random) -> tuple[Counter[str], list[str]]:
    """Numbers of changes by kind, and those that passed, of one cell."""
    tried: Counter[str] = Counter()
    missed = []
    for kind, path, changed in changes(read_document(cell)):
        tried[f"value {kind}"] += 1
        if not noticed(cell, changed):
            missed.append(f"{cell.name}: {kind} {path}")
    items, record = read_items(cell / ITEMS), read_record(cell)
    for index in rng.sample(range(len(items)), rows):
        metric = items[index].metric
        used = metric.startswith("utility/") or (record is not None and metric == record.task.metric)
        for column in COLUMNS:
            with TemporaryDirectory(prefix="tamper-") as name:
                copy = Path(shutil.copytree(cell, Path(name) / "cells" / cell.name))
                change_item(copy / ITEMS, index, column)
                for kind in ("item changed", "item changed and sealed anew"):
                    if "anew" in kind and column == "score" and not used:  # on trust: no figure follows from it
                        continue
                    tried[kind] += 1
                    if not found_out(Path(name)):
                        missed.append(f"{cell.name}: {kind}: {column} of row {index}")
                    forge(copy)
    return tried, missed


def main() -> int:
    """Run, report, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1, help="of each folder, drawn at random")
    parser.add_argument("--rows", type=int, default=5, help="items of each cell, drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    rng, tried, missed, cells = random.Random(args.seed), Counter[str](), list[str](), 0
    for folder in sorted(RESULTS.glob("*/cells")):
        complete = [path for path in sorted(folder.iterdir()) if (record := read_record(path))
                    and record.status == "complete"]  # fmt: skip
        for cell in rng.sample(complete, min(args.cells, len(complete))):
            more, passed = tamper(cell, args.rows, rng)
            tried, missed, cells = tried + more, missed + passed, cells + 1
            print(f"{folder.parent.name}/{cell.name}: {sum(more.values())} changes, {len(passed)} passed",
                  file=sys.stderr, flush=True)  # fmt: skip
    figures = {"cells": cells, "tried": dict(sorted(tried.items())), "passed": missed, "seed": args.seed}
    text = json.dumps(figures, indent=1)
    print(text)
    if args.output:
        args.output.write_text(text + "\n")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
