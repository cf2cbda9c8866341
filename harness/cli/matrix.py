"""Run a grid of cells, one after the other; shared work is done once, finished cells are skipped."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from harness.cli import checks, options
from harness.cli.terminal import print_fitting

HELP = "run a grid of cells, from a file or from comma lists"
EXAMPLES = """\
examples:
  harness matrix --defenses none,dlr --attacks full,lora,checkpointing,redistill
  harness matrix --defenses none,dlr --attacks lora --seeds 0,1,2
  harness matrix --defenses dlr --attacks standard     what ranks a lock
  harness matrix grid.yaml --dry-run

a file has the axes as lists (models, defenses, attacks, tasks, seeds; an
entry is a name or a mapping with settings), and beside them any key of the
spec (budget, replicates, utility, ...):
  defenses: [none, {name: dlr, depth: 32}]
  attacks: [full, lora]
  budget: {steps: 200}
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE.yaml", help="the grid")
    options.add_spec_options(parser, plural=True)
    options.add_place_options(parser)
    options.add_worker_option(parser)
    options.add_report_option(parser)
    parser.add_argument("--json", action="store_true", help="print the records' summaries as JSON")
    parser.add_argument("--dry-run", action="store_true", help="print the plan, run nothing")


def run(args: argparse.Namespace) -> int:
    """Plan, check, run or resume, print the leaderboard of what ran."""
    from harness.grid import plan

    grid, common = _grid(args)
    cells = plan(grid, common)
    data_dir, workers = options.data_dir(args), options.workers(args)
    options.reporting(args)
    checks.check_inputs(cells, data_dir)
    if args.dry_run:
        _print_plan(cells, args)
        return 0
    checks.check_places(args.out, args.cache)

    from harness.ahead import working_ahead
    from harness.grid import run_matrix
    from harness.progress import Progress
    from harness.quiet import stdout_kept

    progress = Progress(quiet=args.quiet)
    workshop = options.workshop(args, progress)
    records = []
    with stdout_kept(), progress.showing(), working_ahead(workshop, workers):
        for record in run_matrix(cells, out=args.out, workshop=workshop):
            records.append(record)
            progress.note(f"    {record.status}" + (f": {record.status_reason}" if record.status_reason else ""))
    _print_result(records, args)
    return int(any(record.status == "failed" for record in records))


def _grid(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    from harness.grid import AXES, split_file
    from harness.spec import layers, read_yaml

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
    locks = len({(c.model.name, str(c.defense), c.seed) for c in cells})
    references = len({(c.model.name, str(c.attack), str(c.task), c.seed, str(c.budget)) for c in cells})
    print(f"\n{len(cells)} cells; shared work: {locks} locks, {references} references (each once)")


def _print_result(records: list[Any], args: argparse.Namespace) -> None:
    from leaderboards.board import leaderboard

    if args.json:
        import json

        print(json.dumps([record.model_dump(mode="json") for record in records], indent=1))
        return
    print_fitting(leaderboard(args.out, cells=True) + "\n")
    print_fitting(leaderboard(args.out))
