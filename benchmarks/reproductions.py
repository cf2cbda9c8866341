"""Tables of papers beside ours: published numbers, and the records of `harness matrix reproductions/...`.

`benchmarks/documents.py` puts the tables into docs/reproductions.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from leaderboards.load import load_results

RESULTS = Path(__file__).parents[1] / "leaderboards" / "results"
PUBLISHED = {"mnist": (0.99, 0.99), "cifar10": (0.80, 0.10), "kmnist": (0.80, 0.10), "fashion_mnist": (0.74, 0.10)}
"""SpecDef (workshop 2025), Table 1, ResNet18: accuracy of the model and of the locked one; MNIST is its own task."""


def specdef_vision() -> str:
    """SpecDef's Table 1, vision, at the size that runs on two cores."""
    from tabulate import tabulate

    headers = ["task", "attack, rate", "paper", "paper, locked", "ours", "ours, locked", "recovery"]
    folder = RESULTS / "specdef_table1_vision"
    if not folder.is_dir():
        rows = [[task, "-", *_pair(both), *["not run"] * 3] for task, both in PUBLISHED.items()]
        return str(tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True))
    cells = load_results(folder).cells
    records = sorted((cell.record for cell in cells), key=lambda record: (record.name("task"), _rate(record)))
    first = records[0]
    ours = [_own(first, side) for side in ("base", "locked")]
    rows = [["mnist (own task)", "-", *_pair(PUBLISHED["mnist"]), *ours, "-"]]
    for record in records:
        task, attack = record.name("task"), f"{record.name('attack')}, {_rate(record):g}"
        ours = [_number(record.score.reference), _number(record.score.attacked), _number(record.recovery)]
        rows.append([task, attack, *_pair(PUBLISHED[task]), *ours])
    body: str = tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True)
    return body


def _rate(record: Any) -> float:
    return float(record.spec["attack"]["learning_rate"])


def _pair(published: tuple[float, float]) -> list[str]:
    return [f"{value:.2f}" for value in published]


def _own(record: Any, side: str) -> str:
    utility = getattr(record.utility, side)
    return _number(next(iter(utility.tasks.values())).score)


def _number(interval: Any) -> str:
    if interval.value is None:
        return "undefined"
    low = "" if interval.low is None else f" [{interval.low:.2f}, {interval.high:.2f}]"
    return f"{interval.value:.2f}{low}"
