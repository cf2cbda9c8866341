"""Tables of papers beside ours, from the records of `harness matrix reproductions/<paper>/<table>.yaml`.

`benchmarks/documents.py` puts them into docs/reproductions.md. A row is a cell; `published.py` has what the papers say.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import published
from published import Said

from harness.files import canonical_json
from harness.numbers.labels import labels
from harness.numbers.robustness import Cell, Robustness, robustness
from harness.records.record import Record
from leaderboards.load import load_results

RESULTS = Path(__file__).parents[1] / "leaderboards" / "results"
Column = tuple[str, Callable[[Record], str]]


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """One table: which records, what the paper says of a cell, and what else is shown of it."""

    folder: str
    """Below `leaderboards/results`."""
    said: Said = published.nothing
    """What the paper says of a cell, without and with the lock."""
    shown: Sequence[str] = ("learning_rate",)
    """Settings of the attack that tell rows apart."""
    more: Sequence[Column] = ()
    """Further columns."""

    def __call__(self) -> str:
        """The table as markdown; a line where there are no records."""
        from tabulate import tabulate

        if not (RESULTS / self.folder / "cells").is_dir():
            return "not run"
        groups = grouped(load_results(RESULTS / self.folder).cells)
        locks = labels([group[0].record.spec["defense"] for group in groups])
        rows, before = list[list[str]](), ""
        for group in groups:
            record, lock = group[0].record, locks[canonical_json(group[0].record.spec["defense"])]
            if lock != before:
                log = RESULTS / self.folder / "cells" / record.id / "log.txt"
                rows.append([lock, *untouched(record, self.said), inflation(log), *["-"] * len(self.more)])
            rows, before = rows + [[lock, *row] for row in self._rows(group)], lock
        headers = ["lock", "task", "attack", "paper", "paper, locked", "ours", "ours, locked", "recovery",
                   *(head for head, _ in self.more)]  # fmt: skip
        body: str = tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True)
        return body

    def _rows(self, group: Sequence[Cell]) -> list[list[str]]:
        found, rows = robustness(group), []
        for cell in sorted(group, key=lambda cell: order(cell.record)):
            record = cell.record
            ours = [number(record.score.reference), number(record.score.attacked), recovered(record, found, group)]
            rows.append([record.name("task"), self._attack(record), *self.said(record), *ours,
                         *(show(record) for _, show in self.more)])  # fmt: skip
        return rows

    def _attack(self, record: Record) -> str:
        attack: Any = record.spec["attack"]
        values = [f"{attack[key]:g}" if isinstance(attack[key], float) else str(attack[key])
                  for key in self.shown if key in attack]  # fmt: skip
        return " ".join([attack["name"].replace("_", "\\_"), *(value.replace("_", "\\_") for value in values)])


def grouped(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells by lock and task, which share their best reference; in the order of the locks' settings."""
    groups: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in cells:
        groups[canonical_json(cell.record.spec["task"]), canonical_json(cell.record.spec["defense"])].append(cell)
    return sorted(groups.values(), key=lambda group: _key(group[0].record))


def _key(record: Record) -> tuple[Any, ...]:
    defense: Any = record.spec["defense"]
    numbers = [defense.get(key, 0) for key in ("depth", "alpha", "rho", "max_steps")]
    return str(defense.get("variant")), *numbers, str(defense.get("layers")), record.name("task")


def order(record: Record) -> tuple[Any, ...]:
    """`full` first, then by name, optimizer and falling rate."""
    attack: Any = record.spec["attack"]
    return attack["name"] != "full", attack["name"], str(attack.get("optim")), -attack["learning_rate"]


def untouched(record: Record, said: Said) -> list[str]:
    """What base and locked model still do: own task's accuracy, or accuracy on minimal pairs and the perplexity."""
    sides = [record.utility.base, record.utility.locked]
    if any(side is None for side in sides):
        return ["untouched", "-", "-", "-", "-", record.status_reason or "-"]
    name = next(iter(sides[0].tasks))  # type: ignore[union-attr]
    values = [number(side.tasks[name].score) for side in sides]  # type: ignore[union-attr]
    if "own" not in record.spec:
        values = [f"{value}, ppl {side.perplexity.value:.1f}"  # type: ignore[union-attr]
                  for value, side in zip(values, sides, strict=True)]  # fmt: skip
    spec = {**record.spec, "task": record.spec.get("own") or {"name": name}, "attack": {"name": "none"}}
    papers = said(record.model_copy(update={"spec": spec}))
    return [f"{name} (utility)".replace("_", "\\_"), "-", *papers, *values]


def inflation(log: Path) -> str:
    """What SpecDef's lock did to the weights, from the cell's log: the mean top singular value and the sharpness."""
    report = re.search(r"^lock report: (.*)$", log.read_text(), re.MULTILINE)
    found = ast.literal_eval(report[1]) if report else {}
    if not {"before", "after"} <= found.keys():
        return "-"
    ends = [found[when] for when in ("before", "after")]
    values = [" to ".join(f"{end[key]:.3g}" for end in ends) for key in ("mean_top", "sharpness")]
    return f"lock: top singular values {values[0]}, sharpness {values[1]}"


def recovered(record: Record, found: Robustness, group: Sequence[Cell]) -> str:
    """Recovery against the best reference of the group, the strongest attack in bold; or why there is none.

    What does not count for a fault of the attack is shown with the fault's name: it may be the lock that is at fault.
    """
    outcome = next((one for one in found.attacks if record.id in one.ids), None)
    if outcome is None:
        why = next((one.reason for one in found.excluded if one.id == record.id), record.status)
        ids = next((one.ids for one in found.attacks if one.label == found.best_reference), [])
        best = next((cell.record.score.reference.value for cell in group if cell.record.id in ids), None)
        base, attacked = record.score.base.value, record.score.attacked.value
        value = "" if None in (best, base, attacked) or best <= base else f"{(attacked - base) / (best - base):.2f}, "
        fault = "owner" if "secret" in why else f"not counted: {why.partition(':')[0]}"
        return f"({value}{fault})".replace("_", "\\_")
    value = "undefined" if outcome.recovery.value is None else number(outcome.recovery)
    value = f"**{value}**" if outcome.label == found.worst_attack else value
    return value + (", collapsed" if outcome.collapsed else "")


def number(interval: Any) -> str:
    """A value with its 95 % interval."""
    if interval.value is None:
        return "undefined"
    low = "" if interval.low is None else f" [{interval.low:.2f}, {interval.high:.2f}]"
    return f"{interval.value:.2f}{low}"


def _ratio(name: str) -> Callable[[Record], str]:
    def show(record: Record) -> str:
        ours, theirs = (getattr(bill, name, None) for bill in (record.cost.attack, record.cost.reference))
        return f"{ours / theirs:.2f} x" if ours and theirs else "-"

    return show


def _backward(record: Record) -> str:
    bill = record.cost.attack
    return f"{bill.backward_flops / bill.forward_flops:.2f}" if bill and bill.forward_flops else "-"


def _seconds(record: Record) -> str:
    bills = [bill for bill in (record.cost.undo, record.cost.attack) if bill]
    return f"{sum(bill.seconds for bill in bills):.0f}" if bills else "-"


def _guess(record: Record) -> str:
    return ", ".join(f"{key} {value:.2f}" for key, value in sorted(record.secret_guess.items())) or "-"


def _kept(record: Record) -> str:
    side = record.utility.attacked
    return "-" if side is None or side.retention is None else f"{side.retention:.2f}"


TABLES: dict[str, Reproduction] = {
    "specdef_table1_vision": Reproduction(folder="specdef_table1_vision", said=published.specdef_vision,
                                          shown=("optim", "learning_rate", "max_steps")),
    "specdef_table1_vision_longer": Reproduction(folder="specdef_table1_vision_longer", said=published.specdef_vision,
                                                 shown=("optim", "learning_rate", "max_steps")),
    "specdef_table1_text": Reproduction(folder="specdef_table1_text", said=published.specdef_text),
    "specdef_table2": Reproduction(folder="specdef_table2", said=published.specdef_backdoor,
                                   shown=("learning_rate", "max_steps", "distil_learning_rate"),
                                   more=[("own task kept", _kept)]),
    "specdef_table2_seeds": Reproduction(folder="specdef_table2_seeds", said=published.specdef_backdoor,
                                         shown=("learning_rate", "max_steps", "distil_learning_rate"),
                                         more=[("own task kept", _kept)]),
    "specdef_table3": Reproduction(folder="specdef_table3", said=published.specdef_unlearning,
                                   shown=("optim", "learning_rate"), more=[("own task kept", _kept)]),
    "specdef_figure3": Reproduction(folder="specdef_figure3", said=published.specdef_rates),
    "specdef_figure4": Reproduction(folder="specdef_figure4", said=published.specdef_preconditioned,
                                    shown=("optim", "learning_rate")),
    "specdef2026_relearning": Reproduction(folder="specdef2026_relearning", said=published.relearning,
                                           shown=("method", "learning_rate"), more=[("utility kept", _kept)]),
    "pmp_mask_ratio": Reproduction(folder="pmp_mask_ratio", more=[("mask guessed", _guess)],
                                   shown=("learning_rate", "method", "guessed_seeds", "complement")),
    "dlr_depth": Reproduction(folder="dlr_depth", more=[
        ("kept bytes", _ratio("kept_for_backward_bytes")), ("peak of backward", _ratio("peak_backward_bytes")),
        ("backward / forward FLOPs", _backward), ("seconds", _seconds)]),
}  # fmt: skip
"""By the tag in docs/reproductions.md."""
