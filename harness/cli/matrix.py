"""Run a grid of cells; shared work is done once, finished cells are skipped, several commands share one folder."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from harness.cli import checks, execution, options
from harness.cli.terminal import print_fitting

HELP = "run a grid of cells, from a file or from comma lists"
EXAMPLES = """\
examples:
  harness matrix --defenses none,dlr --attacks full,lora,checkpointing,redistill
  harness matrix --defenses none,dlr --attacks lora --seeds 0,1,2
  harness matrix --defenses dlr --attacks standard     what ranks a lock
  harness matrix grid.yaml --dry-run                   the plan, and its cost
  harness matrix grid.yaml --workers 4 --timeout 3600  processes; no hanging
  harness matrix grid.yaml --executor ray --resources gpus=1,cpus=4

a file has the axes as lists (models, defenses, attacks, tasks, seeds; an
entry is a name or a mapping with settings), and beside them any key of the
spec (budget, replicates, utility, ...):
  defenses: [none, {name: dlr, depth: 32}]
  attacks: [full, lora]
  budget: {steps: 200}
"""


SHOWN = 20
"""Most lines of shared work above a run."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE.yaml", help="the grid")
    options.add_spec_options(parser, plural=True)
    options.add_place_options(parser)
    execution.add_options(parser)
    options.add_report_option(parser)
    parser.add_argument("--json", action="store_true", help="print the records' summaries as JSON")
    parser.add_argument("--dry-run", action="store_true", help="print the plan, run nothing")


def run(args: argparse.Namespace) -> int:
    """Plan, check, run or resume, print the leaderboard of what ran."""
    from harness.planning.grid import plan

    grid, common = _grid(args)
    cells = plan(grid, common)
    data_dir = options.data_dir(args)
    options.workers(args)
    execution.check(args)
    options.reporting(args)
    checks.check_inputs(cells, data_dir)
    if args.dry_run:
        _print_plan(cells, args)
        return 0
    checks.check_places(args.out, args.cache)

    from harness.planning.grid import run_matrix
    from harness.planning.live import Board
    from harness.quiet import quiet_libraries, stdout_kept

    quiet_libraries()
    board, failed = Board(quiet=args.quiet, total=len(cells)), False
    executor, place, rules = execution.executor(args, cells, data_dir)
    board.note(_summary(cells, args.out, most=SHOWN))
    with stdout_kept(), board.showing():
        for record in run_matrix(cells, place=place, executor=executor, watcher=board, rules=rules):
            failed |= record.status == "failed"
    _print_result(cells, args)
    return int(failed)


def _grid(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    from harness.layers import layers
    from harness.planning.grid import AXES, split_file
    from harness.strict_yaml import read_yaml

    grid, from_file = split_file(read_yaml(args.file)) if args.file else ({}, {})
    for axis in AXES:
        given = getattr(args, axis)
        if given is not None:
            values = [value.strip() for value in given.split(",") if value.strip()]
            grid[axis] = [_seed(value) for value in values] if axis == "seeds" else values
    common = layers(args.config, os.environ, {**from_file, **options.raw_spec(args)}, args.assignments)
    for axis, singular in AXES.items():  # a default axis takes part, so that a setting for it is not lost
        if axis not in grid and singular in common:
            grid[axis] = [common.pop(singular)]
        elif axis in grid and isinstance(common.get(singular), dict):
            shared = common.pop(singular)
            grid[axis] = [{**shared, **({"name": v} if isinstance(v, str) else v)} for v in grid[axis]]
    return grid, common


def _seed(text: str) -> int:
    from harness.errors import UsageError

    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"--seeds {text!r}: expected whole numbers, for example 0,1,2")
    return int(text)


def _print_plan(cells: list[Any], args: argparse.Namespace) -> None:
    import json

    from tabulate import tabulate

    if args.json:
        print(json.dumps([cell.model_dump(mode="json") | {"id": cell.id} for cell in cells], indent=1))
        return
    rows = [[c.id, c.model.name, c.defense["name"], c.attack["name"], c.task["name"], c.seed] for c in cells]
    print(tabulate(rows, headers=["cell", "model", "defense", "attack", "task", "seed"], disable_numparse=True))
    print(f"\n{_summary(cells, args.out)}")


def _shared_work(jobs: list[Any], most: int | None) -> list[str]:
    """A table of what several cells share and is made once, with what it may take; `most` of it, None is all."""
    from tabulate import tabulate

    from harness.planning.live import duration

    shared = [job for job in jobs if job.kind not in ("cell", "load")]
    rows = [[job.title, job.cells, "-" if job.seconds is None else duration(job.seconds)] for job in shared[:most]]
    table = tabulate(rows, headers=["shared work, each once", "cells", "about"], disable_numparse=True) + "\n"
    more = [f"... and {len(shared) - len(rows)} more (--dry-run names them all)\n"] if len(shared) > len(rows) else []
    return [table, *more] if rows else []


def _summary(cells: list[Any], out: Path, most: int | None = None) -> str:
    """How much there is to do: the shared work that is left, by name, and a line or two."""
    from harness.planning.estimate import estimated
    from harness.planning.live import duration
    from harness.planning.pieces import shared
    from harness.planning.plan import jobs
    from harness.records.record_files import finished

    names = [name for cell in cells for name in shared(cell)]
    locks, references = (len({name for name in names if name.startswith(kind)}) for kind in ("lock-", "reference-"))
    replicates = max(cell.replicates for cell in cells)
    done = {cell.id for cell in cells if finished(cell.id, cell.model_dump(mode="json"), out) is not None}
    found, bill, unknown = estimated(jobs([cell for cell in cells if cell.id not in done]), out)
    seeds = f" of {replicates} seeds" if replicates > 1 else ""
    lines = [
        f"{len(cells)} cells; {locks} locks and {references // replicates} references{seeds}, each made once"
    ]
    if done:
        lines[0] += f"; {len(done)} cells are complete"
    if len(found) > unknown and bill.seconds:
        lines.append(f"about {duration(bill.seconds)} of training ({bill.flops:.3g} FLOPs) by earlier records; scoring "
                     f"comes on top" + (f"; {unknown} jobs have no precedent" if unknown else ""))  # fmt: skip
    return "\n".join([*_shared_work(found, most), *lines])


def _print_result(cells: list[Any], args: argparse.Namespace) -> None:
    from harness.cache import default_root
    from leaderboards.board import leaderboard

    if args.json:
        from harness.records.record import dumps
        from harness.records.record_files import read_record

        separator = "["  # one at a time: there may be thousands
        for cell in cells:
            record = read_record(args.out / "cells" / cell.id)
            if record is not None:
                print(separator, dumps(record), sep="\n")
                separator = ","
        print("]" if separator == "," else "[]")
        return
    cache = args.cache or default_root()  # `harness leaderboard` then finds all cells read and ranked
    print_fitting(leaderboard(args.out, cells=True, cache=cache) + "\n")
    print_fitting(leaderboard(args.out, cache=cache))
