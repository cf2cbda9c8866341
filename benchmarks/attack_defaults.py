"""The learning-rate sweep behind the attacks' defaults: every attack, on the base and on a locked model.

    python benchmarks/attack_defaults.py --base DIR --locked DIR --date YYYY-MM-DD      fill in what is missing
    python benchmarks/attack_defaults.py --table                                       write the tables of the README

One row a run in docs/data/attack_defaults.json: 100 steps of 8 x 128 tokens, seed 0, scored on the selection split.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
DATA = DOCS / "data" / "attack_defaults.json"
TASKS = ("python_source", "fictional_facts")
RATES = {
    "full": (3e-4, 1e-3, 2e-3, 3e-3, 5e-3, 1e-2, 3e-2), "full_8bit": (2e-3, 3e-3, 5e-3),
    "lora": (1e-3, 2e-3, 3e-3, 5e-3, 1e-2, 3e-2),
    "qlora": (1e-3, 2e-3, 3e-3, 5e-3), "frozen_mlp": (1e-3, 2e-3, 3e-3, 5e-3, 1e-2),
    "redistill": (2e-3, 3e-3, 5e-3, 1e-2), "mezo": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
    "relative": (1e-2, 2e-2, 4e-2),
}  # fmt: skip
"""`full_trainer`, `checkpointing` and `offload` follow the trajectory of `full` and share its default."""
VARIANTS: dict[str, tuple[dict[str, Any], ...]] = {
    "frozen_mlp": ({}, {"scope": "attention"}), "lora": ({}, {"r": 16, "lora_alpha": 32.0}),
}


def wanted() -> Iterator[tuple[str, str, str, dict[str, Any], float]]:
    """(task, target, attack, other settings, learning rate) of every run."""
    for attack, rates in RATES.items():
        for variant in VARIANTS.get(attack, ({},)):
            for rate in rates:
                for task in TASKS:
                    for target in ("base", "locked"):
                        if target == "locked" or attack != "redistill":  # on the base it is `full`
                            yield task, target, attack, variant, rate


def run(folder: Path, task_name: str, attack_name: str, settings: dict[str, Any], rate: float) -> dict[str, Any]:
    """One attack on a fresh copy of the model in `folder`."""
    from harness import registry
    from harness.meters.meter import Meter
    from harness.models.load import load_model
    from harness.plugins import AttackContext
    from harness.workshop import main_score

    released = load_model(str(folder), data_dir=None, dtype="float32", device="cpu")
    task_class, attack_class = registry.tasks().get(task_name), registry.attacks().get(attack_name)
    task = task_class(task_class.Settings())
    attack = attack_class(attack_class.Settings.parse({**settings, "learning_rate": rate, "eval_points": 0}, "attack"))
    meter, start = Meter(), time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        context = AttackContext(seed=0, device="cpu", folder=Path(scratch), meter=meter, task=task)
        result = attack.attack(released, context)
    seconds = time.perf_counter() - start

    def score() -> float:
        found = type(released)(model=result.model, tokenizer=released.tokenizer, digest="", name="attacked")
        return float(main_score(task, task.score(found, "selection")))

    return {"score": score(), "steps": result.training.steps, "flops": meter.total.flops, "seconds": round(seconds, 1),
            "last_loss": result.training.losses[-1], "error": result.report.get("error"),
            "distil_losses": result.report.get("distil_losses")}  # fmt: skip


def targets(base: Path, locked: Path) -> dict[str, Any]:
    """Digests of the weights, and how the locked model was made."""
    from harness.models.load import load_model

    found = {name: load_model(str(folder), data_dir=None, dtype="float32", device="cpu")
             for name, folder in (("base", base), ("locked", locked)) if folder.exists()}  # fmt: skip
    return {name: {"digest": released.digest, "lock": released.lock} for name, released in found.items()}


def table(rows: list[dict[str, Any]]) -> str:
    """Scores by learning rate; the best of a line is bold."""
    rates = sorted({row["learning_rate"] for row in rows})
    lines = ["| attack | task | target | " + " | ".join(f"{rate:g}" for rate in rates) + " |",
             "|---|---|---|" + "---:|" * len(rates)]  # fmt: skip
    for (attack, settings, task, target), found in sorted(lines_of(rows).items()):
        best = max(found.values())
        shown = {rate: f"**{score:.3f}**" if score == best else f"{score:.3f}" for rate, score in found.items()}
        cells = [shown.get(rate, "") for rate in rates]
        others = "".join(f", {name}={value}" for name, value in json.loads(settings).items())
        lines.append(f"| {attack}{others} | {task} | {target} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def lines_of(rows: list[dict[str, Any]]) -> dict[tuple[str, str, str, str], dict[float, float]]:
    """Score by learning rate for each (attack, other settings, task, target)."""
    found: dict[tuple[str, str, str, str], dict[float, float]] = {}
    for row in rows:
        key = (row["attack"], json.dumps(row["settings"]), row["task"], row["target"])
        found.setdefault(key, {})[row["learning_rate"]] = row["score"]
    return found


def best_rate(rows: list[dict[str, Any]], attack: str, target: str = "locked") -> float | None:
    """The rate with the least mean regret on one model over the tasks; None where fewer than two were tried.

    The regret is the distance to the best score of a line, as a part of that line's range.
    """
    lines = [found for (name, settings, _, model), found in lines_of(rows).items()
             if name == attack and settings == "{}" and model == target]  # fmt: skip
    rates = set.intersection(*(set(found) for found in lines)) if len(lines) == len(TASKS) else set()
    if len(rates) < 2:
        return None

    def regret(rate: float) -> float:
        return sum((max(f.values()) - f[rate]) / ((max(f.values()) - min(f.values())) or 1.0) for f in lines)

    return min(sorted(rates), key=regret)


def readme(text: str) -> str:
    """The README of the attacks with its generated parts made anew."""
    from attack_memory import DATA as MEMORY
    from attack_memory import table as memory_table

    document = json.loads(DATA.read_text())
    parts = {"defaults": f"Swept on {document['date']}.\n\n{table(document['rows'])}",
             "memory": memory_table(json.loads(MEMORY.read_text())["rows"])}  # fmt: skip
    for name, part in parts.items():
        start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        text = text[: text.index(start) + len(start)] + f"\n{part}\n" + text[text.index(end) :]
    return text


def main() -> None:
    """Fill in missing rows, or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--locked", type=Path)
    parser.add_argument("--date")
    parser.add_argument("--only", default="", help="attacks, separated by commas")
    parser.add_argument("--target", choices=("base", "locked"), help="one of the two models only")
    parser.add_argument("--rates", type=lambda text: {float(rate) for rate in text.split(",")}, help="these rates only")
    parser.add_argument("--out", type=Path, default=DATA)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    if options.table:
        page = DOCS / "attacks" / "README.md"
        page.write_text(readme(page.read_text()))
        return
    only = options.only.split(",") if options.only else list(RATES)
    keys = ("task", "target", "attack", "settings", "learning_rate")
    for values in wanted():
        key = dict(zip(keys, values, strict=True))
        done = any(all(row[name] == key[name] for name in keys) for row in rows)
        skipped = options.target not in (None, key["target"]) or values[4] not in (options.rates or {values[4]})
        if not done and not skipped and key["attack"] in only:
            folder = options.base if key["target"] == "base" else options.locked
            row = {**key, **run(folder, values[0], values[2], values[3], values[4])}
            rows.append(row)
            print(row, flush=True)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            document = {"date": options.date, "targets": targets(options.base, options.locked), "rows": rows}
            options.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
