"""What there is: models, defenses, attacks and tasks, and where each comes from.

With a name, its settings: each is a key for --set.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from harness.cli.terminal import print_fitting, wrapped

if TYPE_CHECKING:
    from harness.registry import Registry

HELP = "models, defenses, attacks and tasks, and where each comes from"
EXAMPLES = """\
examples:
  harness list
  harness list attacks
  harness list defenses dlr                            its settings
  harness list models --json
"""
KINDS = ("models", "defenses", "attacks", "tasks")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("kind", nargs="?", choices=KINDS, help="only this kind")
    parser.add_argument("name", nargs="?", metavar="NAME", help="only this one, with its settings")
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    kinds, settings = [kind for kind in KINDS if args.kind in (None, kind)], bool(args.json or args.name)
    rows = [row for kind in kinds for row in _rows(kind, args.name, settings)]
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    if args.name:
        print_fitting(_settings(rows[0]))
        return 0
    for kind in KINDS:
        chosen = [row for row in rows if row["kind"] == kind]
        if chosen:
            table = [[row["name"], row.get("note", ""), row["summary"], row["origin"]] for row in chosen]
            used = [i for i in range(4) if any(row[i] for row in table)]
            head, *body = wrapped([[row[i] for i in used] for row in [[kind, "", "", "from"], *table]], used.index(2))
            print(_table(body, head), end="\n\n")
    return 0


def _table(rows: list[list[str]], head: list[str]) -> str:
    from tabulate import tabulate

    text: str = tabulate(rows, headers=head, tablefmt="simple", disable_numparse=True)
    return text


def _settings(row: dict[str, Any]) -> str:
    """One plug-in: what it is, and its settings with their defaults."""
    singular, note = row["kind"].removesuffix("s"), f" ({row['note']})" if row.get("note") else ""
    text = f"{row['name']}{note}, from {row['origin']}\n{row['summary']}\n"
    table = [[f"{singular}.{key}", json.dumps(field["default"]) if "default" in field else "(required)",
              field.get("description", "")] for key, field in row.get("settings", {}).items()]  # fmt: skip
    if not table:
        return text
    head, *body = wrapped([["--set", "default", ""], *table], 2)
    return f"{text}\n{_table(body, head)}"


def _rows(kind: str, only: str | None, settings: bool) -> list[dict[str, Any]]:
    """A mapping a plug-in; `settings` adds the JSON Schema of each key, which takes longer than all the rest."""
    from harness import registry  # late: it is most of the time that `harness --help` takes

    plugins: Registry[Any] = getattr(registry, kind)()
    rows = []
    for name, plugin in ({only: plugins.get(only)} if only else plugins.working()).items():
        summary = plugin.summary if kind == "models" else plugin.summary()
        row = {"kind": kind, "name": name, "summary": summary, "origin": plugins.origin(name)}
        if kind == "attacks":
            row["note"] = plugin.knowledge.value
        if kind == "tasks":
            row["note"] = "needs the data pack" if plugin.needs_pack else "embedded"
        if kind == "models":
            row["note"] = f"{plugin.parameters:,}"
        if settings and kind in ("defenses", "attacks", "tasks"):
            row["settings"] = plugin.Settings.model_json_schema()["properties"] if plugin.Settings.model_fields else {}
        rows.append(row)
    return rows
