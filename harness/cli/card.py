"""Write the model card of a locked checkpoint, with what records measured of it."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "the model card of a locked folder, with measured results"
EXAMPLES = """\
examples:
  harness card tiny-locked                             print the card
  harness card tiny-locked --results results    with what was measured
  harness card tiny-locked --results results --write    into its README.md
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a checkpoint that harness lock wrote")
    parser.add_argument("--results", type=Path, metavar="RESULTS", help="a folder that harness run or matrix wrote")
    parser.add_argument("--write", action="store_true", help="write FOLDER/README.md instead of printing")


def run(args: argparse.Namespace) -> int:
    """The card that is there, or a plain one; measured results replaced or added."""
    from harness.errors import UsageError
    from harness.files import atomic_write_text, check_output_file
    from harness.models.card import from_block, with_measured
    from harness.models.gate import read_json
    from harness.models.locked import lock_block

    if not (args.folder / "config.json").is_file():
        raise UsageError(f"{args.folder} is no checkpoint: there is no config.json in it")
    block = lock_block(read_json(args.folder / "config.json"), args.folder)
    if block is None:
        raise UsageError(f"{args.folder} is not locked: its config.json has no lockbench block")
    readme = args.folder / "README.md"
    if args.write:
        check_output_file(readme)
    card = readme.read_text(encoding="utf-8") if readme.is_file() else from_block(block)
    if args.results is not None:
        from leaderboards.load import load_results
        from leaderboards.measured import measured

        card = with_measured(card, measured(load_results(args.results, utility=False), str(block.get("digest"))))
    if args.write:
        atomic_write_text(readme, card)
    else:
        print(card, end="")
    return 0
