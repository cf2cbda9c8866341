"""Recompute the figures of every record from its items and hashes, and name each mismatch."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "recompute every figure from items and hashes"
EXAMPLES = "examples:\n  harness verify results\n"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("results", type=Path, metavar="RESULTS", help="a folder that harness run or matrix wrote")


def run(args: argparse.Namespace) -> int:
    """Print mismatches; exit status 1 when there is one."""
    from leaderboards.verify import verify

    mismatches = verify(args.results)
    for mismatch in mismatches:
        print(mismatch)
    print(f"{len(mismatches)} mismatches")
    return int(bool(mismatches))
