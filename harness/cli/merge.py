"""Lay folders of results together; equal cells with different scores are reported and kept apart, not ranked."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli import options

HELP = "lay folders of results together, and report clashes"
EXAMPLES = """\
examples:
  harness merge results-a results-b -o all
  harness merge colleague/results -o results    into a folder with results

exit status 1: some cells clash; all their sides are under clashes/ of the
output folder
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("results", nargs="+", type=options.folder, metavar="RESULTS", help="folders of results")
    parser.add_argument("--out", "--output-path", "-o", type=options.folder, metavar="DIR", required=True,
                        help="folder to lay them together in")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="what became of every cell, as JSON")


def run(args: argparse.Namespace) -> int:
    """Merge, report."""
    from harness.files import check_output_folder
    from harness.records.merge import merge

    check_output_folder(args.out)
    merged = merge(args.results, args.out)
    clashes = [one for one in merged if one.what == "clash"]
    if args.json:
        import dataclasses
        import json

        print(json.dumps([dataclasses.asdict(one) for one in merged], indent=1))
        return int(bool(clashes))
    for one in merged:
        if one.what in ("clash", "unreadable"):
            print(f"{one.what}: {one.id}: {one.detail}")
    counts = {what: sum(one.what == what for one in merged) for what in ("taken", "same", "clash", "unreadable")}
    print(f"{len(merged)} cells in {Path(args.out)}: {counts['taken']} taken, {counts['same']} the same in several "
          f"folders, {counts['clash']} clash, {counts['unreadable']} unreadable")  # fmt: skip
    return int(bool(clashes))
