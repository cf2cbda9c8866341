"""Recompute the figures of every record from its items and hashes, and name each mismatch.

Besides: the data's digest, where the task is available; the base's weights, where the model is; and what the cache of
the runs still holds. What nothing here gives again (seconds, bytes, ...) is listed after the mismatches.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli import options

HELP = "recompute every figure from items and hashes"
EXAMPLES = """\
examples:
  harness verify results
  harness verify results --data-dir data --cache ./cache
  harness verify results --quick                       figures only

exit status 1 when there is a mismatch
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("results", type=Path, metavar="RESULTS", help="a folder that harness run or matrix wrote")
    parser.add_argument("--data-dir", type=options.folder, metavar="DIR", help="the data pack; default HARNESS_DATA")
    parser.add_argument("--cache", type=options.folder, metavar="DIR",
                        help="cache of shared work; default HARNESS_CACHE, else the user's cache")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="only what follows from the records' own files")


def run(args: argparse.Namespace) -> int:
    """Print mismatches; exit status 1 when there is one."""
    from leaderboards.load import load_results
    from leaderboards.verify import ON_TRUST, verify_results

    results = load_results(args.results)
    data_dir = options.data_dir(args)
    mismatches = verify_results(results)
    notes: list[str] = []
    if not args.quick:
        from harness.cache import default_root
        from harness.quiet import quiet_libraries, stdout_kept
        from harness.recheck import recheck

        quiet_libraries()
        with stdout_kept():
            more, notes = recheck(results.cells, data_dir=data_dir, cache=args.cache or default_root())
        mismatches += more
    for mismatch in mismatches:
        print(mismatch)
    for note in notes:
        print(f"  {note}")
    print("  on trust (not to be recomputed from a record and its items):")
    for fields, why in ON_TRUST.items():
        print(f"    {fields}: {why}")
    print(f"{len(results.cells)} cells, {len(mismatches)} mismatches")
    return int(bool(mismatches))
