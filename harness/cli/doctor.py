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
    from harness.cli.terminal import wrapped
    from harness.probes import PROBES, USES, check

    found = {name: check(name) for name in PROBES}
    users = {name: [attack for attack, plugin in registry.attacks().working().items() if name in plugin.requires]
             for name in found}  # fmt: skip
    if args.json:
        print(json.dumps({name: {"ok": reason is None, "reason": reason, "needed_by": users[name]}
                          for name, reason in found.items()}, indent=1))  # fmt: skip
        return 0
    print("\n".join(f"{name:8} {value}" for name, value in machine().items()), end="\n\n")
    rows = [["what", "for", "here", "why not"]]
    for name, reason in found.items():
        use = f"attacks {', '.join(users[name])}" if users[name] else USES.get(name, "")
        rows.append([name, use, "no" if reason else "yes", reason or ""])
    head, *body = wrapped(rows, 3)
    print(tabulate(body, headers=head, disable_numparse=True))
    return 0


def machine() -> dict[str, str]:
    """The machine and the versions, for people and bug reports."""
    import platform
    import shutil
    from importlib.metadata import version

    import psutil

    from harness.cache import default_root
    from harness.threads import usable_cores

    root = default_root()
    there = next(path for path in (root, *root.parents) if path.exists())
    libraries = ("torch", "transformers", "accelerate", "peft", "lm-eval")
    return {
        "lockbench": f"{version('lockbench')}, Python {platform.python_version()}, {platform.system()}",
        "with": ", ".join(f"{name} {version(name)}" for name in libraries),
        "cores": f"{usable_cores()} usable",
        "memory": f"{psutil.virtual_memory().available / 2**30:.1f} GiB available",
        "cache": f"{root}, {shutil.disk_usage(there).free / 2**30:.1f} GiB free",
    }
