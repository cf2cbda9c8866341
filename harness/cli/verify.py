"""Recompute the figures of every record from its items and hashes, and name each mismatch.

Besides: the data's digest, where the task is available; the base's weights, where the model is; and what the cache of
the runs still holds. What nothing here gives again (seconds, bytes, ...) is listed after the mismatches; a seal finds a
change to it, and only `--rerun` a number that was made up and sealed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli import options

if TYPE_CHECKING:
    from harness.numbers.robustness import Cell
    from harness.records.recheck import Mismatch

HELP = "recompute every figure from items and hashes"
EXAMPLES = """\
examples:
  harness verify results
  harness verify results --data-dir data --cache ./cache
  harness verify results --quick                       figures only
  harness verify submission --rerun 2                  and run two cells again

exit status 1 when there is a mismatch
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("results", type=Path, metavar="RESULTS", help="a folder that harness run or matrix wrote")
    options.add_data_option(parser)
    options.add_cache_option(parser)
    parser.add_argument("--quick", action="store_true", help="only what follows from the records' own files")
    parser.add_argument("--rerun", type=int, metavar="N", default=0,
                        help="run N complete cells, drawn at random, again and compare their scores; takes as long as "
                        "they took, and does what their specs say")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Print mismatches; exit status 1 when there is one."""
    from harness.errors import UsageError
    from harness.text import visible
    from leaderboards.groups import progress_over
    from leaderboards.load import load_results
    from leaderboards.verify import ON_TRUST, notes, readable, verify_results

    if args.rerun < 0:
        raise UsageError(f"--rerun {args.rerun}: expected a whole number from 0")
    with progress_over(args.results).showing() as progress:
        results = load_results(args.results, progress=progress)
        mismatches, lines = verify_results(results, progress), notes(args.results, results)
    for found, said in _machine_checks(args, readable(results)), _second_runs(args, results.cells):
        mismatches += found
        lines += said
    for mismatch in mismatches:
        print(visible(str(mismatch)))
    for line in lines:
        print(f"  {visible(line)}")
    print("  on trust (not to be recomputed from a record and its items):")
    for fields, why in ON_TRUST.items():
        print(f"    {fields}: {why}")
    print(f"{len(results.cells)} cells, {len(mismatches)} mismatches")
    return int(bool(mismatches))


def _machine_checks(args: argparse.Namespace, cells: list[Cell]) -> tuple[list[Mismatch], list[str]]:
    if args.quick:
        return [], []
    from harness.cache import default_root
    from harness.quiet import quiet_libraries, stdout_kept
    from harness.records.recheck import recheck

    quiet_libraries()
    with stdout_kept():
        return recheck(cells, data_dir=options.data_dir(args), cache=args.cache or default_root())


def _second_runs(args: argparse.Namespace, cells: list[Cell]) -> tuple[list[Mismatch], list[str]]:
    if not args.rerun:
        return [], []
    import tempfile

    from harness.cache import Cache
    from harness.cell import run_cell
    from harness.progress import Progress
    from harness.quiet import quiet_libraries, stdout_kept
    from harness.records.rerun import rerun

    quiet_libraries()
    from harness.workshop import Workshop

    progress = Progress(quiet=False)
    with tempfile.TemporaryDirectory(prefix="lockbench-rerun-") as place, stdout_kept(), progress.showing():
        workshop = Workshop(cache=Cache(Path(place) / "cache"), data_dir=options.data_dir(args), progress=progress)
        return rerun(cells, args.rerun, out=Path(place) / "results",
                     run=lambda spec, out: run_cell(spec, out=out, workshop=workshop))  # fmt: skip
