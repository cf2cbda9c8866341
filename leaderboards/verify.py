"""Recompute what a record claims, from its spec, trajectories and items, and compare."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness import registry
from harness.bill import Bill
from harness.files import canonical_json
from harness.numbers.robustness import Cell
from harness.numbers.scoring import EPS, costs_to_recover, task_numbers, utilities
from harness.numbers.validity import digest_flags
from harness.progress import Said, counted
from harness.records.cell_files import ITEMS, LOG, RECORD
from harness.records.items import SIDES, Item, scores
from harness.records.recheck import Mismatch as Mismatch
from harness.records.record import Record
from harness.records.sections import Point
from harness.search.curve import curve as curve_of
from harness.settings import Settings
from leaderboards.load import Results, load_results

TOLERANCE = 1e-9
"""Relative; another NumPy may sum in another order."""
ON_TRUST = {
    "cost.*.seconds, *_bytes, trainable_parameters, energy_joules": "only the machine that ran it saw them",
    "cost.lock": "the lock is not made again",
    "cost.undo.steps, cost.search": "no trajectory counts them",
    "cost.*.forward_flops and backward_flops": "their sum is checked, not each",
    "trajectory, reference_trajectory": "scores are of selection items, which are not kept (cost_to_recover follows "
    "from them); of what was spent, the ends are checked, and between them that it rises",
    "fidelity, layer_errors": "the models are not run again",
    "model.parameters, locked_parameters": "the models are not built",
    "scores of metrics beside the task's": "no figure uses them",
    "provenance.code, packages, machine, targets, started, finished": "said by the machine that ran it",
}
"""What no evidence beside a record gives again, and why. The seal finds a change to it, if it is not sealed again;
`--rerun` compares what is counted, fidelity and layer_errors with another run (`harness.records.rerun`)."""


def verify(folder: Path) -> list[Mismatch]:
    """All mismatches in an output folder, cells that cannot be read included.

    Raises:
        UsageError: there is nothing to verify.
    """
    return verify_results(load_results(folder))


def verify_results(results: Results, progress: Said | None = None) -> list[Mismatch]:
    """All mismatches among records that are loaded; `progress` hears of it."""
    found = [Mismatch(skipped.folder, "record", skipped.reason, "a whole record") for skipped in results.skipped]
    cells = readable(results)
    for cell in counted(cells, len(cells), "recomputing", progress):
        found += verify_cell(cell)
    return found


def readable(results: Results) -> list[Cell]:
    """Every cell that there is something to check of: the whole ones, and what is left of altered ones."""
    return [*results.cells, *(skipped.cell for skipped in results.skipped if skipped.cell is not None)]


def notes(folder: Path, results: Results) -> list[str]:
    """What a reader should know of a folder that is no mismatch: records without a seal, files that no record names."""
    unsealed = sum(cell.record.seal is None for cell in results.cells)
    lines = [f"seals: {unsealed} of {len(results.cells)} records are of schema version 1, which has none: what is on "
             "trust below is as it was found"] if unsealed else []  # fmt: skip
    cells = folder / "cells"
    strays = sorted(path for path in cells.rglob("*") if not path.is_dir()
                    and not (path.parent.parent == cells and path.name in (RECORD, ITEMS, LOG)))  # fmt: skip
    if strays:
        lines.append(f"files that no record names: {len(strays)}, first {str(strays[0].relative_to(folder))!r}")
    return lines


def verify_cell(cell: Cell) -> list[Mismatch]:
    """The mismatches of one cell."""
    record, items = cell.record, cell.items
    wanted = hashlib.sha256(canonical_json(record.spec).encode()).hexdigest()[: len(record.id)]
    pairs: dict[str, tuple[Any, Any]] = {"id": (record.id, wanted)}
    try:
        numbers = task_numbers(items, record.task.metric, record.score.unit)
        made = utilities(items, _chances(record), record.utility.eps)
        pairs |= _items_alike(items)
    except ValueError as error:
        return [Mismatch(record.id, "items", str(error), "items that all models were scored on")]
    for name in ("score", "gain", "reference_gain", "recovery"):
        pairs[name] = (getattr(record, name), getattr(numbers, name))
    pairs["utility"] = (record.utility, made)
    pairs["utility.eps"] = (record.utility.eps, EPS)
    if record.cost_to_recover:
        costs = costs_to_recover(record.trajectory, record.reference_trajectory)
        pairs["cost_to_recover"] = (record.cost_to_recover, costs)
    pairs |= _names(record) | _sums(record) | _seeds(cell) | _flags(record) | _search(record) | _bounds(record)
    return [mismatch for name, (ours, theirs) in pairs.items() for mismatch in _compare(record.id, name, ours, theirs)]


def _items_alike(items: Sequence[Item]) -> dict[str, tuple[Any, Any]]:
    """Of every metric, those that no figure uses too: the items and weights of each model against the first one's."""
    pairs: dict[str, tuple[Any, Any]] = {}
    for metric in sorted({row.metric for row in items}):
        found = {side: have for side in SIDES if (have := scores(items, side, metric)) is not None}
        first, *others = found
        for side in others:
            names, wanted = (found[one].items for one in (side, first))
            pairs[f"items of {side} in {metric}"] = (_text(set(names) - set(wanted)), _text(set(wanted) - set(names)))
            if names == wanted:
                pairs[f"weights of {side} in {metric}"] = (found[side].weights.tolist(), found[first].weights.tolist())
    return pairs


def _text(names: set[str]) -> str:
    return ", ".join(sorted(names))[:200]


def _chances(record: Record) -> dict[str, float | None]:
    base = record.utility.base
    return {task: score.chance for task, score in base.tasks.items()} if base else {}


def _bounds(record: Record) -> dict[str, tuple[Any, Any]]:
    """What cannot be, whatever was measured: bills below 0, steps beyond the budget, an outcome without its runs."""
    pairs: dict[str, tuple[Any, Any]] = {}
    bills = {stage: bill for stage, bill in record.cost.model_dump().items() if isinstance(bill, dict)}
    for stage, bill in bills.items():
        pairs |= {f"cost.{stage}.{key}": (value, "no less than 0") for key, value in bill.items()
                  if isinstance(value, (int, float)) and value < 0}  # fmt: skip
    budget, trained = record.spec["budget"], record.trajectory[-1].step if record.trajectory else 0
    limit = budget.get("steps") if isinstance(budget, dict) else None
    if isinstance(limit, int) and trained > limit:
        pairs["trajectory: steps"] = (trained, f"at most {limit}, the budget")
    wanted, seeds = record.spec.get("replicates"), record.score.attacked.n_seeds
    if record.status == "complete" and isinstance(wanted, int) and record.score.attacked.n_items:
        pairs["score.attacked: seeds"] = (seeds, wanted)
    if record.status == "complete" and not record.score.attacked.n_items:
        pairs["status"] = (record.status, "scores of the attacked model")
    return pairs


def _names(record: Record) -> dict[str, tuple[Any, Any]]:
    """What the record says twice."""
    pairs: dict[str, tuple[Any, Any]] = {"score.unit": (record.score.unit, record.task.unit)}
    pairs["model.name"] = (record.model.name, record.name("model"))
    pairs["task.name"] = (record.task.name, record.name("task"))
    if record.task.digest is not None:
        pairs["provenance.data"] = (record.provenance.data.get(record.task.name), record.task.digest)
    return pairs


def _sums(record: Record) -> dict[str, tuple[Any, Any]]:
    """The bills of attack and reference against the trajectories, which were counted on the way."""
    cost, pairs = record.cost, dict[str, tuple[Any, Any]]()
    for name, points, bill in (("trajectory", record.trajectory, cost.attacker() if cost.attack else None),
                               ("reference_trajectory", record.reference_trajectory, cost.reference)):  # fmt: skip
        pairs |= {f"{name}.{index}": (after, "no less than the point before it") for index, after in _falls(points)}
        if points and bill and cost.search is None:  # a search's trials are on the bill, its trajectory is the winner's
            pairs |= _end(name, points[-1], bill)
    if record.trajectory and cost.search is None:
        undo = cost.undo or Bill()
        first = record.trajectory[0]
        pairs["trajectory.first"] = ([first.step, first.tokens, first.flops], [0, undo.tokens, undo.flops])
    if record.trajectory and cost.attack:
        pairs["cost.attack.steps"] = (cost.attack.steps, record.trajectory[-1].step)
    if record.reference_trajectory:
        first = record.reference_trajectory[0]
        pairs["reference_trajectory.first.step"] = (first.step, 0)
        if cost.attack and not cost.undo and cost.search is None:
            pairs["reference_trajectory.first"] = ([first.tokens, first.flops], [0, 0])
        if cost.reference and cost.search is None and not first.flops:  # nothing was undone: all steps are training
            pairs["cost.reference.steps"] = (cost.reference.steps, record.reference_trajectory[-1].step)
    return pairs


def _end(name: str, last: Point, bill: Bill) -> dict[str, tuple[Any, Any]]:
    where = "cost.reference" if name.startswith("reference") else "cost.undo + attack"
    return {f"{where}: FLOPs": (bill.flops, last.flops), f"{where}: tokens": (bill.tokens, last.tokens)}


def _falls(points: Sequence[Point]) -> Iterable[tuple[int, Any]]:
    for index, (before, after) in enumerate(pairwise(points), 1):
        if after.step <= before.step or after.tokens < before.tokens or after.flops < before.flops:
            yield index, after.model_dump()


def _seeds(cell: Cell) -> dict[str, tuple[Any, Any]]:
    """The seeds that are listed against those of the items."""
    listed = cell.record.provenance.seeds
    return {f"provenance.seeds.{side}": (sorted(seeds), sorted({row.seed for row in cell.items if row.model == side and
            row.metric == cell.record.task.metric and row.seed is not None})) for side, seeds in listed.items()
            if side in ("attacked", "reference")}  # fmt: skip


def _flags(record: Record) -> dict[str, tuple[Any, Any]]:
    """Flags that follow from the record itself must be in it: dropping one would let a cell count that must not."""
    weights, have = record.provenance.weights, {flag.flag for flag in record.validity}
    wanted = {flag.flag for flag in digest_flags(weights, record.name("defense"))}
    wanted |= {"collapsed"} if record.utility.collapsed else set()
    return {f"validity.{flag}": ("absent", "present") for flag in sorted(wanted - have)}


def _search(record: Record) -> dict[str, tuple[Any, Any]]:
    """What follows from the trials: the best so far, the choice, and the bill `search`."""
    if record.search is None:
        return {}
    given = record.spec["attack"]
    attacks, name = registry.attacks(), record.name("attack")
    kept = attacks.get(name).as_given if name in attacks.names() else ()
    found = {side: curve for side in ("attacked", "reference") if (curve := getattr(record.search, side)) is not None}
    made = {side: curve_of(old.trials, given if isinstance(given, dict) else {}, kept) for side, old in found.items()}
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
