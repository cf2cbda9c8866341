"""What this machine can and cannot run, and why."""

from __future__ import annotations

import argparse
import json

HELP = "what this machine can and cannot run, and why"
EXAMPLES = "examples:\n  harness doctor\n  harness doctor --json\n"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(args: argparse.Namespace) -> int:
    """Probe everything; a missing extra is not a failure, so the exit status is 0."""
    from tabulate import tabulate

    from harness import registry
    from harness.probes import PROBES, check

    found = {name: check(name) for name in PROBES}
    users = {name: [attack for attack, plugin in registry.attacks().working().items() if name in plugin.requires]
             for name in found}  # fmt: skip
    if args.json:
        print(json.dumps({name: {"ok": reason is None, "reason": reason, "needed_by": users[name]}
                          for name, reason in found.items()}, indent=1))  # fmt: skip
        return 0
    rows = [[name, "no" if reason else "yes", reason or "", ", ".join(users[name])] for name, reason in found.items()]
    print(tabulate(rows, headers=["what", "here", "why not", "needed by attacks"], disable_numparse=True,
                   maxcolwidths=[None, None, 60, 30]))  # fmt: skip
    return 0
