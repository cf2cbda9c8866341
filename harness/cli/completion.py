"""Completion of verbs, options and names in bash, zsh and fish, by argcomplete."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import Any

HELP = "print the completion script of a shell"
EXAMPLES = """\
examples:
  source <(harness completion bash)                    in ~/.bashrc, for good
  source <(harness completion zsh)                     in ~/.zshrc
  harness completion fish > ~/.config/fish/completions/harness.fish
"""
SHELLS = ("bash", "zsh", "fish")
AXES = ("model", "defense", "attack", "task")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("shell", choices=SHELLS, help="the shell")


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    from harness.errors import UsageError

    if find_spec("argcomplete") is None:
        raise UsageError("argcomplete is not installed (pip install 'lockbench[completion]')")
    from argcomplete.shell_integration import shellcode

    print(shellcode(["harness"], shell=args.shell))
    return 0


def answer(top: argparse.ArgumentParser) -> None:
    """Answer the shell that asks what may come next, and exit; called only where `_ARGCOMPLETE` is set."""
    import argcomplete

    verbs: Any = next(action for action in top._actions if isinstance(action, argparse._SubParsersAction))
    for verb in verbs.choices.values():
        for action in verb._actions:
            if completer := _completer(action.dest, verb.prog):
                action.completer = completer
    argcomplete.autocomplete(top)


def _completer(dest: str, program: str) -> Callable[..., Iterable[str]] | None:
    if dest in AXES:
        return lambda prefix, **_: _names(dest)
    if dest.removesuffix("s") in AXES:
        return _tasks_of_utility if dest == "tasks" and not program.endswith("matrix") else _listed(dest)
    if dest == "name" and program.endswith("fetch"):
        return lambda prefix, **_: _names("model")
    return _keys if dest == "assignments" else None


def _names(axis: str) -> list[str]:
    from harness import registry

    plugins: registry.Registry[Any] = getattr(registry, f"{axis}s")()
    suites = [f"{name}{part}" for name in registry.suites().names() for part in ("", ":quick")]
    return [*plugins.names(), *(suites if axis == "attack" else ())]


def _listed(dest: str) -> Callable[..., Iterable[str]]:
    """A comma list: what is before the last comma stays."""

    def complete(prefix: str, **_: Any) -> list[str]:
        before, comma, _last = prefix.rpartition(",")
        return [f"{before}{comma}{name}" for name in _names(dest.removesuffix("s"))]

    return complete


def _tasks_of_utility(prefix: str, **_: Any) -> list[str]:
    return ["minimal_pairs"]


def _keys(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """`--set` keys: of the plug-ins that the line names so far, else of the defaults."""
    from harness import registry
    from harness.spec import Spec

    chosen, found = Spec(), [f"{name}=" for name in Spec.model_fields if name not in AXES]
    for axis in AXES[1:]:
        name = getattr(parsed_args, axis, None) or getattr(chosen, axis)["name"]
        plugins: registry.Registry[Any] = getattr(registry, f"{axis}s")()
        if name in plugins.names():
            found += [f"{axis}.{key}=" for key in plugins.get(name).Settings.model_fields]
    return found
