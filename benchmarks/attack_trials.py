"""Trials behind two choices of an attacker: the optimizers that look at curvature, and how SpecDef is undone.

    python benchmarks/attack_trials.py --which optimizers --model base=DIR --date YYYY-MM-DD    fill in what is missing
    python benchmarks/attack_trials.py --which undo_specdef --model base=DIR --model specdef=DIR --date YYYY-MM-DD
    python benchmarks/attack_trials.py --table                                      write the tables into the notes

One row a run in docs/data/attack_trials.json: python_source, sequences of 128 tokens, 8 a step where no other number is
named, seed 0, scored on the selection split.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attack_defaults import run, targets

DOCS = Path(__file__).parents[1] / "docs"
DATA = DOCS / "data" / "attack_trials.json"
TASK = "python_source"
KEYS = ("target", "attack", "settings", "learning_rate")
OPTIMIZERS = {"adamw_torch": (3e-3,), "sophia": (3e-3,), "adahessian": (3e-3,), "lbfgs": (3e-3,)}
SHORT = {"max_steps": 30, "per_device_train_batch_size": 4}
"""For the optimizers: a step of those that look at curvature costs several of AdamW's."""
UNDOS: tuple[dict[str, Any], ...] = (
    {"distil_steps": 50}, {"distil_steps": 50, "distil_optim": "muon"}, {"distil_steps": 150},
)  # fmt: skip


def wanted(which: str) -> Iterator[tuple[str, str, dict[str, Any], float]]:
    """(target, attack, other settings, learning rate) of every run."""
    if which == "optimizers":
        for optim, rates in OPTIMIZERS.items():
            for rate in rates:
                yield "base", "full", {"optim": optim} | SHORT, rate
        return
    half = {"max_steps": 50}
    yield "base", "full", half, 3e-3
    for settings in UNDOS:
        yield "specdef", "undo_specdef", half | settings, 3e-3


def table(rows: list[dict[str, Any]], title: str) -> str:
    """One line a setting, one column a rate."""
    rates = sorted({row["learning_rate"] for row in rows})
    lines = [f"| {title} | " + " | ".join(f"{rate:g}" for rate in rates) + " | GFLOP | distillation's last loss |",
             "|---|" + "---:|" * (len(rates) + 2)]  # fmt: skip
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        others = "".join(f", {name}={value}" for name, value in row["settings"].items())
        groups.setdefault(f"{row['attack']} on {row['target']}{others}", []).append(row)
    for name, found in groups.items():
        scores = {row["learning_rate"]: f"{row['score']:.3f}" for row in found}
        flops = min(row["flops"] for row in found), max(row["flops"] for row in found)
        spent = " - ".join(dict.fromkeys(f"{value / 1e9:.0f}" for value in flops))
        distilled = next((f"{row['distil_losses'][1]:.3f}" for row in found if row["distil_losses"]), "")
        cells = [scores.get(rate, "") for rate in rates]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {spent} | {distilled} |")
    return "\n".join(lines)


def pages(document: dict[str, Any]) -> dict[Path, str]:
    """The notes with their generated parts made anew."""
    found = {}
    for which, name in (("optimizers", "README.md"), ("undo_specdef", "undo_specdef.md")):
        page = DOCS / "attacks" / name
        text, start, end = page.read_text(), f"<!-- trials of {which} -->", f"<!-- end of trials of {which} -->"
        made = table([row for row in document["rows"] if row["which"] == which], "attack")
        found[page] = text[: text.index(start) + len(start)] + f"\n{made}\n" + text[text.index(end) :]
    return found


def main() -> None:
    """Fill in missing rows, or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--which", choices=("optimizers", "undo_specdef"))
    parser.add_argument("--model", action="append", default=[], help="name=folder, as `harness lock` saves it")
    parser.add_argument("--date")
    parser.add_argument("--most", type=int, default=100, help="runs, then stop")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    document: dict[str, Any] = json.loads(DATA.read_text()) if DATA.exists() else {"targets": {}, "rows": []}
    if options.table:
        for page, text in pages(document).items():
            page.write_text(text)
        return
    folders = {name: Path(folder) for name, _, folder in (part.partition("=") for part in options.model)}
    document["targets"] |= {name: targets(folder, Path("none"))["base"] for name, folder in folders.items()}
    rows: list[dict[str, Any]] = document["rows"]
    todo = [key for key in (dict(zip(KEYS, values, strict=True)) for values in wanted(options.which))
            if not any(all(row[name] == key[name] for name in KEYS) for row in rows)]  # fmt: skip
    for key in todo[: options.most]:
        found = run(folders[key["target"]], TASK, key["attack"], key["settings"], key["learning_rate"])
        rows.append({"which": options.which, "date": options.date, **key, **found})
        print(rows[-1], flush=True)
        DATA.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
