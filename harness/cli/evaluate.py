"""Utility only: lm-eval tasks and held-out perplexity of any model, locked ones included."""

from __future__ import annotations

import argparse
import json

from harness.cli import checks, options

HELP = "utility of a model: lm-eval tasks and held-out perplexity"
EXAMPLES = """\
examples:
  harness evaluate --model tiny
  harness evaluate --model ./tiny-locked --tasks minimal_pairs
  harness evaluate --model ./tiny-locked --tasks pack_piqa --data-dir data
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    options.add_spec_options(parser)
    options.add_place_options(parser)
    parser.add_argument("--json", action="store_true", help="print scores as JSON")


def run(args: argparse.Namespace) -> int:
    """Load, score, print."""
    from harness.layers import from_process
    from harness.progress import Progress
    from harness.quiet import stdout_kept

    spec = from_process(args.config, options.raw_spec(args), args.assignments)
    checks.check_inputs([spec], options.data_dir(args), lock=False, attack=False)
    checks.check_cache(args.cache)
    progress = Progress(quiet=args.quiet)
    with stdout_kept(), progress.showing():
        workshop = options.workshop(args, progress)
        released = workshop.base(spec)
        scores = workshop.utility(spec, released)
    if args.json:
        print(json.dumps({"model": spec.model.name, "digest": released.digest,
                          **scores.model_dump(mode="json", exclude={"items"})}, indent=1))  # fmt: skip
        return 0
    from leaderboards.summary import utility_table

    print(utility_table(scores.model_dump(mode="json")))
    return 0
