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
from statistics import median
from typing import Any

import scale_tables
import search_tables
import theory_tables

import reproductions
from leaderboards.board import leaderboard
from leaderboards.load import load_results
from leaderboards.ranking import rank
from leaderboards.units import with_ends

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "leaderboards" / "results"


def boards(name: str) -> str:
    """Ranking and cells of one committed folder of records, as markdown."""
    return f"{ranking(name)}\n{cells(name)}"


def cells(name: str) -> str:
    """Only the cells."""
    return leaderboard(RESULTS / name, "markdown", cells=True)


def ranking(name: str) -> str:
    """Only the ranking."""
    return leaderboard(RESULTS / name, "markdown")


def crossed(name: str) -> str:
    """Recovery by attack and lock, over all seeds."""
    rows = rank(load_results(RESULTS / name, utility=False).cells)
    found = {row.defense: {one.label: with_ends(one.recovery) + (" (collapsed)" if one.collapsed else "")
                           for one in row.attacks} for row in rows}  # fmt: skip
    attacks = sorted({label for outcomes in found.values() for label in outcomes})
    table = [{"attack": label, **{lock: outcomes.get(label, "-") for lock, outcomes in found.items()}}
             for label in attacks]  # fmt: skip
    return _table(table, "Recovery by attack and lock, over all seeds, against the best reference of any attack:")


def searched(name: str) -> str:
    """The ranking of searched cells, recovery by attack and lock, and what each search chose."""
    records = [cell.record for cell in load_results(RESULTS / name, utility=False).cells]
    counts = search_tables.outcomes(records)
    told = ", ".join(f"{number} {outcome}" for outcome, number in sorted(counts.items()))
    note = f"What each search chose, as a factor of the rate given, and what it brought ({told} trials):"
    return f"{ranking(name)}\n{crossed(name)}\n\n{_table(search_tables.found(records), note)}"


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


def board_page() -> str:
    """What the page of many records costs to make and to open."""
    found = json.loads((ROOT / "docs" / "data" / "board_page.json").read_text())
    what = {"alone": "first, by one process", "first": f"first, by {found['cores']} processes",
            "again": "second", "changed": "after one record went"}  # fmt: skip
    rows = []
    for name, title in what.items():
        runs = found["builds"][name]
        waits = sorted(run["wall"] for run in runs)
        used, memory = median(run["processor"] for run in runs), max(run["memory"] for run in runs)
        rows.append({"build": title, "seconds": f"{median(waits):.2f}", "least": f"{waits[0]:.2f}",
                     "most": f"{waits[-1]:.2f}", "processor seconds": f"{used:.1f}",
                     "largest process": f"{memory / 2**20:.0f} MiB"})  # fmt: skip
    shown = found["milliseconds"]
    made = (f"{found['records']:,} records of 7 kB and 796 scored items, a page of {found['bytes'] / 2**20:.1f} MiB, "
            f"{found['cores']} cores; median of {len(found['builds']['first'])}. Chromium paints first "
            f"{shown['first_paint'] / 1000:.2f} s after it opens the file and shows the ranking after "
            f"{shown['ranking'] / 1000:.2f} s.")  # fmt: skip
    return _table(rows, made)


def fuzzing() -> str:
    """Inputs of the last long run of each fuzz target, and what failed."""
    rows = json.loads((ROOT / "docs" / "data" / "fuzz.json").read_text())["runs"]
    table = [{"reader": row["target"], "engine": row["engine"], "seed": row["seed"],
              "inputs": f"{row['inputs']:,}".replace(",", " "),
              "failures": "; ".join(row["failures"]) or "none", "Python": row["python"]} for row in rows]  # fmt: skip
    return _table(table, f"{sum(row['inputs'] for row in rows):,} inputs in all.".replace(",", " "))


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


def speed() -> str:
    """Our loop against PEFT with the stock Trainer, and the lock's stages, by share of the matrix-multiply rate."""
    found = json.loads((ROOT / "docs" / "data" / "training_speed.json").read_text())
    first = found["pairs"][0]
    setting = f"{first['threads']} threads, {first['steps']} steps, {first['repeats']} repeats in turns"
    pairs = [{name: row[key] for name, key in (
        ("method", "method"), ("precision", "precision"), ("ours, s", "ours s"), ("Trainer, s", "trainer s"),
        ("time, ours / Trainer", "time ratio"), ("peak, ours, MiB", "ours MiB"), ("peak, Trainer, MiB", "trainer MiB"),
        ("share of matmul rate", "share of matmul rate"), ("Trainer's", "trainer share"))}
        for row in found["pairs"]]  # fmt: skip
    stages = [{name: row[key] for name, key in (
        ("stage of DLR-Lock", "stage"), ("seconds", "seconds"), ("share of matmul rate", "share of matmul rate"))}
        for row in found["locks"]]  # fmt: skip
    note = "The lock's stages, whose start (greedy least squares) and held-out checks are in their time:"
    best = f"{setting}; the ratio is the median over pairs, seconds are the best."
    return f"{_table(pairs, best)}\n\n{_table(stages, note)}"


def spectral_step() -> str:
    """What SpecDef's spectral term adds to a training step, beside a full SVD and the teacher's pass."""
    found = json.loads((ROOT / "docs" / "data" / "specdef_step.json").read_text())
    time, flops = found["time_ratio"], found["flop_ratio"]
    names = {"specdef": f"the term, k = {found['k']}", "svd": "an SVD of every matrix", "teacher": "the KL's teacher"}
    rows = [{"on top of a plain step": names[key], "time of the step": f"{time[key]:.2f} x",
             "FLOPs of the step": f"{flops[key]:.3f} x"} for key in names]  # fmt: skip
    cheaper = (time["svd"] - 1) / (time["specdef"] - 1)
    note = (f"{found['model']}: {found['matrices']} matrices, {found['tokens']} tokens, {found['threads']} thread, "
            f"{found['repeats']} pairs in turns. The term takes 1/{cheaper:.0f} of the SVD's time.")  # fmt: skip
    return _table(rows, note)


def openings() -> str:
    """What short searches find of a made-up attack, with and without the opening along the learning rate."""
    found = json.loads((ROOT / "docs" / "data" / "search_openings.json").read_text())
    rows = [{"trials": trials, "search": way, **{f"best rate {where}": gain for where, gain in gains.items()}}
            for trials, ways in found["gain"].items() for way, gains in ways.items()]  # fmt: skip
    return _table(rows, f"Mean best gain over {2 * found['attacks']} made-up attacks a range.")


def _table(rows: list[dict[str, Any]], note: str) -> str:
    from tabulate import tabulate

    body: str = tabulate([list(row.values()) for row in rows], headers=list(rows[0]), tablefmt="pipe", floatfmt=".3g")
    return f"{note}\n\n{body}"


PARTS: dict[str, tuple[str, Callable[[], str]]] = {
    "README.md:ranking": ("README.md", lambda: ranking("tiny")),
    "docs/measured.md:folders": ("docs/measured.md", commands),
    "docs/measured.md:tiny": ("docs/measured.md", lambda: boards("tiny")),
    "docs/measured.md:everything": ("docs/measured.md", lambda: f"{ranking('everything')}\n{crossed('everything')}"),
    "docs/measured.md:memory": ("docs/measured.md", lambda: boards("memory")),
    "docs/measured.md:longer": ("docs/measured.md", lambda: cells("longer")),
    "docs/measured.md:facts": ("docs/measured.md", lambda: boards("facts")),
    "docs/measured.md:locks": ("docs/measured.md", lambda: boards("locks")),
    "docs/measured.md:standard": ("docs/measured.md", lambda: searched("standard")),
    "docs/measured.md:kept": ("docs/measured.md", lambda: boards("kept")),
    "docs/measured.md:composed": ("docs/measured.md", lambda: boards("composed")),
    "docs/numbers.md:openings": ("docs/numbers.md", openings),
    "docs/locks/specdef.md:step": ("docs/locks/specdef.md", spectral_step),
    "docs/measured.md:coverage": ("docs/measured.md", coverage),
    "docs/measured.md:speed": ("docs/measured.md", speed),
    "docs/measured.md:board_page": ("docs/measured.md", board_page),
    **{f"docs/reproductions.md:{tag}": ("docs/reproductions.md", table) for tag, table in reproductions.TABLES.items()},
    "SECURITY.md:fuzz": ("SECURITY.md", fuzzing),
    "SECURITY.md:tamper": ("SECURITY.md", lambda: scale_tables.tampering(ROOT / "docs" / "data")),
    "docs/scale.md:scale": ("docs/scale.md", lambda: scale_tables.scale(ROOT / "docs" / "data")),
    **{f"docs/theory.md:{tag}": ("docs/theory.md", make) for tag, make in theory_tables.PARTS.items()},
}
"""Generated parts by `file:tag`: the text between `<!-- tag:begin -->` and `<!-- tag:end -->`."""
PAGES = {ROOT / "docs" / "board.html": "everything", ROOT / "docs" / "standard.html": "standard"}
"""Published pages, and the records that they are of: every lock against every attack, and under the searched suite."""
_NUMBER = re.compile(r"-?\d+\.\d+(?:e[+-]?\d+)?")


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
    for path, name in PAGES.items():
        texts[path] = leaderboard(RESULTS / name, "html")
    return {path: text for path, text in texts.items()
            if not path.is_file() or _rounded(text) != _rounded(path.read_text())}  # fmt: skip


def _rounded(text: str) -> str:
    """The text with shorter numbers: pages have them in full, and another processor's last digits may differ."""
    return _NUMBER.sub(lambda match: f"{float(match[0]):.3g}", text)


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

        records = [cell.record for cell in load_results(RESULTS / "tiny", utility=False).cells]
        board_figure(records, ROOT / "docs" / "figures" / "result.png")
    return int(args.check and bool(found))


if __name__ == "__main__":
    sys.exit(main())
