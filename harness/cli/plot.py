"""Draw the figures of a folder of records: recovery, heat map, trajectories, searches. Equal records, equal files."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "draw the figures of all records in a folder"
EXAMPLES = """\
examples:
  harness plot results -o plots
  harness plot results -o plots --kinds heat,trajectory --formats pdf
"""
KINDS = "board,heat,trajectory,search"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("results", type=Path, metavar="RESULTS", help="a folder that harness run or matrix wrote")
    parser.add_argument("--output", "-o", type=Path, metavar="DIR", default=Path("plots"), help="default plots")
    parser.add_argument("--kinds", metavar="A,B", default=KINDS, help=f"default {KINDS}")
    parser.add_argument("--formats", metavar="A,B", default="png,svg", help="png, svg, pdf; default png,svg")


def run(args: argparse.Namespace) -> int:
    """Load, draw, say what was written."""
    from harness.files import check_output_folder
    from leaderboards.figures import FORMATS, draw
    from leaderboards.formats import visible
    from leaderboards.load import load_results

    kinds, formats = _chosen(args.kinds, KINDS.split(","), "kind"), _chosen(args.formats, FORMATS, "format")
    check_output_folder(args.output, need_bytes=0)
    for path, what in draw(load_results(args.results, utility=False), args.output, kinds, formats):
        print(f"{path}: {visible(what)}")
    return 0


def _chosen(text: str, allowed: list[str] | tuple[str, ...], what: str) -> list[str]:
    from harness.errors import UsageError
    from harness.settings import unknown

    names = [name for name in text.split(",") if name]
    for name in names:
        if name not in allowed:
            raise UsageError(unknown(name, allowed, f"{what} of figure"))
    return names
