"""The command `harness`: one file a verb. Nothing here imports torch; a verb does, when it runs."""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from keyword import iskeyword
from typing import NoReturn

from harness.errors import Outcome, UsageError
from harness.files import cannot_write
from harness.loop import ranks
from harness.records.redact import redact
from harness.text import visible

VERBS = ("run", "matrix", "merge", "leaderboard", "plot", "lock", "card", "import", "evaluate", "list", "verify",
         "fetch", "new", "completion", "doctor")  # fmt: skip

DESCRIPTION = """\
lockbench: how much a lock on an open-weight model stops, and what it costs.

Locks a real model, sends attackers that know the lock to fine-tune it anyway,
and scores utility, attack gain and compute cost, with intervals.
"""
EXAMPLES = """\
examples:
  harness run --defense dlr --attack lora              lock, attack, print the table
  harness matrix --defenses none,dlr --attacks full,lora,redistill
  harness leaderboard results                          rank the locks
  harness list attacks                                 what there is
"""


class _Help(argparse.RawDescriptionHelpFormatter):
    """Room for the longest verb; else its help would start on a line of its own."""

    def add_argument(self, action: argparse.Action) -> None:
        super().add_argument(action)
        if isinstance(action, argparse._SubParsersAction):
            self._action_max_length += 2


def _wrapped(text: str) -> str:
    """Paragraphs at 80 columns."""
    return "\n\n".join(textwrap.fill(" ".join(part.split()), 80) for part in text.strip().split("\n\n"))


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; the usage is one `--help` away."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {_line(message)}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = _Parser(prog="harness", description=DESCRIPTION, epilog=EXAMPLES,
                  formatter_class=_Help)  # fmt: skip
    top.add_argument("--version", action="version", version=f"lockbench {version('lockbench')}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    for name in VERBS:
        module = import_module("harness.cli." + name + "_" * iskeyword(name))
        verb = verbs.add_parser(name, help=module.HELP, description=_wrapped(module.__doc__ or ""),
                                epilog=module.EXAMPLES, formatter_class=_Help)  # fmt: skip
        module.add_options(verb)
        verb.set_defaults(run=module.run)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; exit status 0 (every cell has an outcome), 1 (some failed) or 2 (usage)."""
    warnings.formatwarning = lambda message, *_, **__: f"harness: {message}\n"
    top = parser()
    if "_ARGCOMPLETE" in os.environ:
        import_module("harness.cli.completion").answer(top)
    args = top.parse_args(_dashes(sys.argv[1:] if argv is None else argv))
    if args.verb is None:
        top.print_help()
        return 0
    if ranks.size() > 1:
        return _ranked(args)
    return _run(args)


def _ranked(args: argparse.Namespace) -> int:
    """Under a launcher: the first rank runs the command, the others follow it."""
    if args.verb != "run":
        print(f"harness {args.verb}: a launcher with several ranks is for `harness run`", file=sys.stderr)
        return 2
    if ranks.rank():
        ranks.end(ranks.follow())
    try:
        status = _run(args)
    finally:
        ranks.dismiss()
    ranks.end(status)


def _run(args: argparse.Namespace) -> int:
    """Run the verb; whatever it raises that a user can mend becomes one line."""
    try:
        status: int = args.run(args)
    except UsageError as error:
        print(f"harness {args.verb}: {_line(error)}", file=sys.stderr)
        return 2
    except Outcome as outcome:  # where there is no record to say so: `harness lock`
        print(f"harness {args.verb}: {outcome.status}: {_line(outcome)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"harness {args.verb}: interrupted; what is finished is kept, the same command goes on from there",
              file=sys.stderr)  # fmt: skip
        return 130
    except BrokenPipeError:  # `harness list | head`
        sys.stderr.close()
        return 0
    except OSError as error:
        if not cannot_write(error):
            raise
        print(f"harness {args.verb}: {error.strerror}; what is finished is kept, and the same command goes on from "
              "there when there is room", file=sys.stderr)  # fmt: skip
        return 2
    return status


def _line(error: object) -> str:
    """An error on one line; a checkpoint's or a record's own words in it cannot reach the terminal's controls."""
    return visible(redact(" ".join(str(error).split())))


def _dashes(argv: Sequence[str]) -> list[str]:
    """`--output_path` and `--output-path` both parse (lm-eval users type the first)."""
    normal = []
    for word in argv:
        name, equals, value = word.partition("=")
        normal.append(name.replace("_", "-") + equals + value if word.startswith("--") else word)
    return normal


if __name__ == "__main__":
    sys.exit(main())
