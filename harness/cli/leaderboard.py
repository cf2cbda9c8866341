"""Rank the locks in a folder of records by the lower bound of their robustness.

A folder of 1000 cells or more is read by a process a core (OMP_NUM_THREADS: by so many).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli import options
from harness.cli.terminal import print_fitting

HELP = "rank the locks over all records in a folder"
EXAMPLES = """\
examples:
  harness leaderboard results
  harness leaderboard results --format markdown -o board.md
  harness leaderboard results --cells --format csv
  harness leaderboard results --format html -o board.html    one page, charts
"""
FORMATS = ("table", "markdown", "csv", "latex", "json", "html")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("results", type=Path, metavar="RESULTS", help="a folder that harness run or matrix wrote")
    parser.add_argument("--format", choices=FORMATS, default="table", help="default table")
    parser.add_argument("--cells", action="store_true", help="one row a cell instead of one a lock (html has both)")
    parser.add_argument("--output", "-o", type=Path, metavar="FILE", help="write here instead of stdout")
    options.add_cache_option(parser)
    parser.add_argument("--no-cache", action="store_true", help="read and rank everything, whatever was found before")


def run(args: argparse.Namespace) -> int:
    """Load, rank, render."""
    from harness.cache import default_root
    from harness.files import atomic_write_text, check_output_file
    from harness.threads import usable_cores
    from leaderboards.board import leaderboard
    from leaderboards.groups import progress_over

    if args.output:
        check_output_file(args.output)
    cache = None if args.no_cache else args.cache or default_root()
    with progress_over(args.results).showing() as progress:
        text = leaderboard(args.results, args.format, cells=args.cells, cache=cache, progress=progress,
                           processes=1 if progress.quiet else usable_cores())  # fmt: skip
    if args.output:
        atomic_write_text(args.output, text)
    else:
        print_fitting(text) if args.format == "table" else print(text, end="")
    return 0
