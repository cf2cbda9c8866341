"""Write the skeleton of a plug-in: an installable package with a working example and its conformance tests."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli import options
from harness.scaffold import KINDS

HELP = "a plug-in package of your own, with its conformance tests"
EXAMPLES = """\
examples:
  harness new defense my_lock                          into ./lockbench-my-lock
  harness new attack my_attack -o ~/src/my-attack
  harness new task my_task

then, in the new folder:
  pip install -e ".[test]" && pytest && harness list
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("kind", choices=KINDS, help="what it is")
    parser.add_argument("name", metavar="NAME", help="as harness list will show it: lower case, digits, underscores")
    parser.add_argument("--out", "-o", type=options.folder, metavar="DIR", help="new folder; default ./lockbench-NAME")


def run(args: argparse.Namespace) -> int:
    """Render, check the place and the name, write, say what comes next."""
    from harness import registry
    from harness.errors import UsageError
    from harness.files import check_output_folder
    from harness.scaffold import render

    found = render(args.kind, args.name)
    plugins: registry.Registry[object] = getattr(registry, f"{args.kind}s")()
    if args.name in plugins.names():
        raise UsageError(f"{args.kind} {args.name!r} is already provided by {plugins.origin(args.name)}; "
                         "choose another name")  # fmt: skip
    target: Path = args.out or Path(f"lockbench-{args.name.replace('_', '-')}")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} is not an empty folder; choose a new one with -o")
    check_output_folder(target)
    for name, text in found.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text(text, encoding="utf-8")
    print(f"{target}: {args.kind} {args.name}, in {len(found)} files\n\nnext:\n  cd {target}\n"
          f'  pip install -e ".[test]"\n  pytest\n  harness list {args.kind}s')  # fmt: skip
    return 0
