"""Writes the generated parts of the documents from committed records and measurements; `--check` says what is stale.

    python benchmarks/documents.py [--check]

Sources: `leaderboards/results/*` (records) and `docs/data/*.json` (what the other scripts here measured).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import scale_tables
import theory_tables

from leaderboards.board import leaderboard
from leaderboards.load import load_results

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "leaderboards" / "results"


def boards(name: str) -> str:
    """Ranking and cells of one committed folder of records, as markdown."""
    return f"{leaderboard(RESULTS / name, 'markdown')}\n{leaderboard(RESULTS / name, 'markdown', cells=True)}"


def ranking(name: str) -> str:
    """Only the ranking."""
    return leaderboard(RESULTS / name, "markdown")


def coverage() -> str:
    """How often 95 % intervals of recovery hold the truth, by simulation."""
    rows = json.loads((ROOT / "docs" / "data" / "coverage.json").read_text())
    worlds: dict[tuple[float, float, bool], dict[int, list[float]]] = {}
    plain: dict[tuple[float, float, bool], list[float]] = {}
    for row in rows:
        world = (row["attacked_noise"], row["reference_noise"], row["binary"])
        worlds.setdefault(world, {}).setdefault(row["seeds"], []).append(row["coverage"])
        plain.setdefault(world, []).append(row["plain_coverage"])
    table = [
        {
            "noise over seeds (attack / reference)": f"{100 * world[0]:g} % / {100 * world[1]:g} %",
            "items": "right or wrong" if world[2] else "graded",
            **{f"{n} seeds": _range(values) for n, values in sorted(seeds.items())},
            "plain bootstrap": _range(plain[world]),
        }
        for world, seeds in worlds.items()
    ]
    note = f"{rows[0]['repeats']} repeats a world, recovery 0, 0.5 and 1; least to largest coverage."
    return _table(table, note)


def _range(values: list[float]) -> str:
    return f"{min(values):.3f}" if min(values) == max(values) else f"{min(values):.3f} - {max(values):.3f}"


def commands() -> str:
    """The command that remakes each folder of records, from the records themselves."""
    lines = []
    for folder in sorted(path for path in RESULTS.iterdir() if path.is_dir()):
        records = [cell.record for cell in load_results(folder).cells]
        axes = {
            part: list(dict.fromkeys(record.name(part) for record in records))  # type: ignore[arg-type]
            for part in ("defense", "attack", "task")
        }
        lines.append(
            f"- `{folder.name}`: {len(records)} cells; defenses {', '.join(sorted(axes['defense']))}; "
            f"attacks {', '.join(sorted(axes['attack']))}; tasks {', '.join(sorted(axes['task']))}"
        )
    return "\n".join(lines)


def _table(rows: list[dict[str, Any]], note: str) -> str:
    from tabulate import tabulate

    body: str = tabulate([list(row.values()) for row in rows], headers=list(rows[0]), tablefmt="pipe", floatfmt=".3g")
    return f"{note}\n\n{body}"


PARTS: dict[str, tuple[str, Callable[[], str]]] = {
    "README.md:ranking": ("README.md", lambda: ranking("tiny")),
    "docs/measured.md:folders": ("docs/measured.md", commands),
    "docs/measured.md:tiny": ("docs/measured.md", lambda: boards("tiny")),
    "docs/measured.md:memory": ("docs/measured.md", lambda: boards("memory")),
    "docs/measured.md:facts": ("docs/measured.md", lambda: boards("facts")),
    "docs/measured.md:locks": ("docs/measured.md", lambda: boards("locks")),
    "docs/measured.md:coverage": ("docs/measured.md", coverage),
    "docs/scale.md:scale": ("docs/scale.md", lambda: scale_tables.scale(ROOT / "docs" / "data")),
    **{f"docs/theory.md:{tag}": ("docs/theory.md", make) for tag, make in theory_tables.PARTS.items()},
}
"""Generated parts by `file:tag`: the text between `<!-- tag:begin -->` and `<!-- tag:end -->`."""


def filled(text: str, tag: str, new: str) -> str:
    """`text` with what is between the tag's marks replaced."""
    pattern = re.compile(rf"(<!-- {tag}:begin -->\n).*?(<!-- {tag}:end -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"no marks for {tag!r}")
    return pattern.sub(lambda match: f"{match[1]}\n{new.strip()}\n\n{match[2]}", text)


def stale() -> dict[Path, str]:
    """Files whose generated parts differ from what the sources say, with the text they should have."""
    texts: dict[Path, str] = {}
    for key, (name, make) in PARTS.items():
        path = ROOT / name
        texts[path] = filled(texts.get(path, path.read_text()), key.partition(":")[2], make())
    return {path: text for path, text in texts.items() if text != path.read_text()}


def main() -> int:
    """Write, or with --check only name, what is stale; exit status 1 if --check found something."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args()
    found = stale()
    for path, text in found.items():
        print(path.relative_to(ROOT), file=sys.stderr)
        if not args.check:
            path.write_text(text)
    if not args.check:
        from leaderboards.plots import board_figure

        board_figure(RESULTS / "tiny", ROOT / "docs" / "figures" / "result.png")
    return int(args.check and bool(found))


if __name__ == "__main__":
    sys.exit(main())
