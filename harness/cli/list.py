"""What there is: models, defenses, attacks and tasks, with the package each comes from."""

from __future__ import annotations

import argparse
import json
from typing import Any

from harness import registry

HELP = "models, defenses, attacks and tasks, and where each comes from"
EXAMPLES = "examples:\n  harness list\n  harness list attacks\n  harness list models --json\n"
KINDS = ("models", "defenses", "attacks", "tasks")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("kind", nargs="?", choices=KINDS, help="only this kind")
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    rows = [row for kind in KINDS if args.kind in (None, kind) for row in _rows(kind)]
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    from tabulate import tabulate

    for kind in KINDS:
        chosen = [row for row in rows if row["kind"] == kind]
        if chosen:
            table = [[row["name"], row.get("note", ""), row["summary"], row["origin"]] for row in chosen]
            print(tabulate(table, headers=[kind, "", "", "from"], tablefmt="simple", disable_numparse=True), end="\n\n")
    return 0


def _rows(kind: str) -> list[dict[str, Any]]:
    plugins: registry.Registry[Any] = getattr(registry, kind)()
    rows = []
    for name, plugin in plugins.working().items():
        summary = plugin.summary if kind == "models" else plugin.summary()
        row = {"kind": kind, "name": name, "summary": summary, "origin": plugins.origin(name)}
        if kind == "attacks":
            row["note"] = plugin.knowledge.value
        if kind == "tasks":
            row["note"] = "needs the data pack" if plugin.needs_pack else "embedded"
        if kind == "models":
            row["note"] = f"{plugin.parameters:,}"
        if kind in ("defenses", "attacks", "tasks"):
            row["settings"] = plugin.Settings.model_json_schema()["properties"] if plugin.Settings.model_fields else {}
        rows.append(row)
    return rows
