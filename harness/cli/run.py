"""Run one cell: lock a model, attack it, attack the base the same way, and score both; a suite is a cell an attack."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from harness.cli import checks, options
from harness.cli.terminal import print_fitting
from harness.loop import ranks

HELP = "lock a model, attack it, print the scored table"
EXAMPLES = """\
examples:
  harness run --defense dlr --attack lora
  harness run --defense none --attack lora             the control
  harness run --defense dlr --attack full --set attack.learning_rate=3e-3
  harness run --defense dlr --attack standard          what ranks a lock
  harness run --model ./my-llama --defense dlr --budget steps=200,memory=8GiB
  harness run --model hf --model_args pretrained=./my-llama,dtype=bfloat16
  harness run --defense external --set defense.path=./locked-by-others
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    options.add_spec_options(parser)
    options.add_place_options(parser)
    options.add_worker_option(parser)
    options.add_report_option(parser)
    parser.add_argument("--json", action="store_true", help="print the record instead of the table")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved spec and its id, run nothing")
    parser.add_argument("--log-samples", action="store_true", help="accepted for lm-eval's sake: items are always kept")


def run(args: argparse.Namespace) -> int:
    """Resolve, run or resume, print."""
    from harness.layers import layers
    from harness.planning.grid import plan

    specs = plan({}, layers(args.config, os.environ, options.raw_spec(args), args.assignments))
    data_dir, workers = options.data_dir(args), options.workers(args)
    options.reporting(args)
    checks.check_inputs(specs, data_dir)
    if not args.dry_run:
        checks.check_places(args.out, args.cache)
    if args.dry_run or not args.quiet:
        print("---\n".join(map(options.as_yaml, specs)), file=sys.stdout if args.dry_run else sys.stderr)
    if args.dry_run:
        return 0

    from harness.cell import run_cell
    from harness.planning.ahead import working_ahead
    from harness.progress import Progress
    from harness.quiet import stdout_kept
    from leaderboards.summary import cell_summary

    progress, records = Progress(quiet=args.quiet), []
    workshop = options.workshop(args, progress)
    with working_ahead(workshop, workers if ranks.size() == 1 else 1):
        for spec in specs:
            with stdout_kept(), progress.showing():
                record = run_cell(spec, out=args.out, workshop=workshop)
            records.append(record)
            if not args.json:
                print_fitting(cell_summary(record))
                print(f"\nrecord: {args.out / 'cells' / record.id / 'record.json'}")
    if args.json:
        print(_json(records))
    elif len(records) > 1:
        print_fitting(f"\n{_worst_case(records, args)}")
    return int(any(record.status == "failed" for record in records))


def _json(records: list[Any]) -> str:
    """The record of one cell, or a list of those of a suite."""
    import json

    if len(records) == 1:
        return str(records[0].model_dump_json(indent=1))
    return json.dumps([record.model_dump(mode="json") for record in records], indent=1)


def _worst_case(records: list[Any], args: argparse.Namespace) -> str:
    """What the leaderboard says of these cells alone: the attack of the suite that recovered most, by name."""
    from leaderboards.board import leaderboard

    return f"worst case over the suite:\n\n{leaderboard(args.out, only={record.id for record in records})}"
