"""Run one cell: lock a model, attack it, attack the base the same way, and score both."""

from __future__ import annotations

import argparse
import sys

from harness.cli import checks, options

HELP = "lock a model, attack it, print the scored table"
EXAMPLES = """\
examples:
  harness run --defense dlr --attack lora
  harness run --defense none --attack lora --task fictional_facts      the undefended control
  harness run --defense dlr --attack full --set defense.depth=32 --set attack.learning_rate=3e-3
  harness run --model ./my-llama --defense dlr --attack redistill --budget steps=200,memory=8GiB
  harness run --model hf --model_args pretrained=./my-llama,dtype=bfloat16 --attack full --json
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    options.add_spec_options(parser)
    options.add_place_options(parser)
    options.add_worker_option(parser)
    parser.add_argument("--json", action="store_true", help="print the record instead of the table")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved spec and its id, run nothing")
    parser.add_argument("--log-samples", action="store_true", help="accepted for lm-eval's sake: items are always kept")


def run(args: argparse.Namespace) -> int:
    """Resolve, run or resume, print."""
    from harness.spec import from_process

    spec = from_process(args.config, options.raw_spec(args), args.assignments)
    data_dir, workers = options.data_dir(args), options.workers(args)
    checks.check_inputs([spec], data_dir)
    if not args.dry_run:
        checks.check_places(args.out, args.cache)
    if args.dry_run or not args.quiet:
        print(options.as_yaml(spec), file=sys.stdout if args.dry_run else sys.stderr)
    if args.dry_run:
        return 0

    from harness.ahead import working_ahead
    from harness.cell import run_cell
    from harness.progress import Progress
    from harness.quiet import stdout_kept
    from leaderboards.summary import cell_summary

    progress = Progress(quiet=args.quiet)
    workshop = options.workshop(args, progress)
    with stdout_kept(), progress.showing(), working_ahead(workshop, workers):
        record = run_cell(spec, out=args.out, workshop=workshop)
    print(record.model_dump_json(indent=1) if args.json else cell_summary(record))
    if not args.json:
        print(f"\nrecord: {args.out / 'cells' / record.id / 'record.json'}")
    return int(record.status == "failed")
