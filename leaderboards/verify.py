"""Recompute what a record claims, from its spec, trajectories and items, and compare."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.files import canonical_json
from harness.record import Record
from harness.robustness import Cell
from harness.scoring import costs_to_recover, task_numbers, utilities
from harness.search.curve import curve as curve_of
from harness.settings import Settings
from leaderboards.load import load_results

TOLERANCE = 1e-9
"""Relative; another NumPy may sum in another order."""


@dataclass(frozen=True)
class Mismatch:
    """A number that does not follow from the evidence beside it."""

    cell: str
    field: str
    recorded: Any
    recomputed: Any

    def __str__(self) -> str:
        return f"{self.cell}: {self.field} is {self.recorded!r} in the record and {self.recomputed!r} from the evidence"


def verify(folder: Path) -> list[Mismatch]:
    """All mismatches in an output folder, cells that cannot be read included.

    Raises:
        UsageError: there is nothing to verify.
    """
    results = load_results(folder)
    found = [Mismatch(skipped.folder, "record", skipped.reason, "a whole record") for skipped in results.skipped]
    for cell in results.cells:
        found += verify_cell(cell)
    return found


def verify_cell(cell: Cell) -> list[Mismatch]:
    """The mismatches of one cell."""
    record, items = cell.record, cell.items
    wanted = hashlib.sha256(canonical_json(record.spec).encode()).hexdigest()[: len(record.id)]
    pairs: dict[str, tuple[Any, Any]] = {"id": (record.id, wanted)}
    try:
        numbers = task_numbers(items, record.task.metric, record.score.unit)
    except ValueError as error:
        return [Mismatch(record.id, "items", str(error), "items that all models were scored on")]
    for name in ("score", "gain", "reference_gain", "recovery"):
        pairs[name] = (getattr(record, name), getattr(numbers, name))
    base = record.utility.base
    chances = {task: score.chance for task, score in base.tasks.items()} if base else {}
    pairs["utility"] = (record.utility, utilities(items, chances, record.utility.eps))
    if record.cost_to_recover:
        costs = costs_to_recover(record.trajectory, record.reference_trajectory)
        pairs["cost_to_recover"] = (record.cost_to_recover, costs)
    pairs |= _search(record)
    return [mismatch for name, (ours, theirs) in pairs.items() for mismatch in _compare(record.id, name, ours, theirs)]


def _search(record: Record) -> dict[str, tuple[Any, Any]]:
    """What follows from the trials: the best so far, the choice, and the bill `search`."""
    if record.search is None:
        return {}
    given = record.spec["attack"]
    found = {side: curve for side in ("attacked", "reference") if (curve := getattr(record.search, side)) is not None}
    made = {side: curve_of(old.trials, given if isinstance(given, dict) else {}) for side, old in found.items()}
    pairs: dict[str, tuple[Any, Any]] = {f"search.{side}": (found[side], made[side]) for side in found}
    if record.cost.search is not None and "attacked" in made:
        pairs["cost.search"] = (record.cost.search, made["attacked"].bill)
    return pairs


def _compare(cell: str, field: str, recorded: Any, recomputed: Any) -> list[Mismatch]:
    """Numbers are compared; reasons, which are words, are not."""
    ours, theirs = (value.model_dump() if isinstance(value, Settings) else value for value in (recorded, recomputed))
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = [key for key in {**ours, **theirs} if key != "reason"]
        return [m for key in keys for m in _compare(cell, f"{field}.{key}", ours.get(key), theirs.get(key))]
    if isinstance(ours, (int, float)) and isinstance(theirs, (int, float)):
        same = math.isclose(ours, theirs, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    else:
        same = bool(ours == theirs)
    return [] if same else [Mismatch(cell, field, ours, theirs)]
