from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from record_factory import METRIC, make_cell, write_cell

from harness.numbers.robustness import Cell
from harness.records.cell_files import LOG
from harness.records.provenance import Weights
from harness.records.record import Record
from leaderboards.verify import verify, verify_cell


def test_an_honest_folder_has_no_mismatch(tmp_path: Path) -> None:
    for name, status in (("lora", "complete"), ("full", "out_of_memory")):
        write_cell(tmp_path, make_cell(attack=name, status=status))
    assert verify(tmp_path) == []


def changed(cell: Cell, **update: object) -> Cell:
    return Cell(Record.model_validate(cell.record.model_copy(update=update).model_dump()), cell.items)


@pytest.mark.parametrize("field", ["recovery", "gain", "reference_gain"])
@pytest.mark.parametrize("end", ["value", "low", "high"])
def test_an_altered_number_is_found(field: str, end: str) -> None:
    cell = make_cell()
    interval = getattr(cell.record, field)
    better = interval.model_copy(update={end: getattr(interval, end) - 0.001})
    (mismatch,) = verify_cell(changed(cell, **{field: better}))
    assert mismatch.field == f"{field}.{end}"
    assert cell.record.id in str(mismatch)


def test_altered_items_spec_and_costs_are_found() -> None:
    cell = make_cell()
    items = [replace(row, score=row.score - 0.1) if row.model == "attacked" and row.metric == METRIC else row
             for row in cell.items]  # fmt: skip
    fields = {mismatch.field for mismatch in verify_cell(Cell(cell.record, items))}
    assert {"score.attacked.value", "gain.value", "recovery.value"} <= fields
    other = changed(cell, spec={**cell.record.spec, "seed": 7})
    assert [mismatch.field for mismatch in verify_cell(other)] == ["id"]
    cheap = {"0.5": cell.record.cost_to_recover["0.5"].model_copy(update={"flops": 9e99})}
    costs = verify_cell(changed(cell, cost_to_recover={**cell.record.cost_to_recover, **cheap}))
    assert [mismatch.field for mismatch in costs] == ["cost_to_recover.0.5.flops"]


def test_a_hidden_collapse_is_found() -> None:
    cell = make_cell(utility=0.97, attacked_utility=0.6)
    utility = cell.record.utility.model_copy(update={"collapsed": False})
    assert [mismatch.field for mismatch in verify_cell(changed(cell, utility=utility))] == ["utility.collapsed"]
    assert [mismatch.field for mismatch in verify_cell(changed(cell, validity=[]))] == ["validity.collapsed"]


def test_items_that_do_not_pair_are_a_mismatch_not_a_crash() -> None:
    cell = make_cell()
    (mismatch,) = verify_cell(Cell(cell.record, [row for row in cell.items if row.item != "d3" or row.model != "base"]))
    assert mismatch.field == "items"


def test_a_cell_that_cannot_be_read_is_a_mismatch(tmp_path: Path) -> None:
    write_cell(tmp_path, make_cell())
    (write_cell(tmp_path, make_cell(attack="full")) / LOG).write_text("")
    (mismatch,) = verify(tmp_path)
    assert mismatch.field == "record"


FREE = re.compile(
    r"cost\.\w+\.(seconds|\w+_bytes|trainable_parameters|energy_joules)|cost\.lock\..*|fidelity\..*|schema_version"
    r"|model\.(parameters|locked_parameters)|(reference_)?trajectory\.\d+\.score|(reference_)?trajectory\.[1-4]\..*"
    r"|provenance\.machine\..*"
)
"""Numbers that `leaderboards.verify.ON_TRUST` names (scores decide cost_to_recover, but not each of them does)."""


def numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Every number below `value` with its path."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from numbers(part, f"{path}.{key}".lstrip("."))
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        yield path, value


def with_number(document: Any, path: str, value: float) -> Any:
    changed = copy.deepcopy(document)
    *parents, last = path.split(".") if "0.5" not in path and "0.9" not in path else _with_dots(path)
    inner = changed
    for part in parents:
        inner = inner[int(part) if isinstance(inner, list) else part]
    inner[int(last) if isinstance(inner, list) else last] = value
    return changed


def _with_dots(path: str) -> list[str]:
    """The thresholds' keys have a dot in them."""
    return [part.replace("_", ".") if part in ("0_5", "0_9") else part
            for part in path.replace("0.5", "0_5").replace("0.9", "0_9").split(".")]  # fmt: skip


def test_any_single_number_is_either_recomputed_or_named_as_on_trust() -> None:
    cell = make_cell(seed=3)
    seeds = {"attacked": [31, 32], "reference": [1031, 1032]}
    record = cell.record.model_copy(update={"provenance": cell.record.provenance.model_copy(update={"seeds": seeds})})
    assert verify_cell(Cell(record, cell.items)) == []
    document = record.model_dump(mode="json")
    found = dict(numbers(document))
    assert len(found) > 150
    for path, value in found.items():
        other = value + 1 if isinstance(value, int) else value * 1.001 + 1e-6
        try:
            altered = Record.model_validate(with_number(document, path, other))
        except ValueError:  # the schema itself refuses it
            continue
        caught = bool(verify_cell(Cell(altered, cell.items)))
        assert caught or FREE.fullmatch(path), f"{path}: {value} -> {other} is not noticed"


@pytest.mark.parametrize("index", [0, 70, 130, 250, 400])
def test_any_single_item_is_noticed(index: int) -> None:
    cell = make_cell()
    items = list(cell.items)
    items[index] = replace(items[index], score=items[index].score - 0.01)
    assert verify_cell(Cell(cell.record, items))


def test_a_dropped_flag_and_other_names_are_found() -> None:
    cell = make_cell()
    same = Weights(base="a" * 64, locked="b" * 64, attacked=["b" * 64])
    provenance = cell.record.provenance.model_copy(update={"weights": same})
    assert [m.field for m in verify_cell(changed(cell, provenance=provenance))] == ["validity.attacked_is_locked"]
    task = cell.record.task.model_copy(update={"name": "other"})
    assert [m.field for m in verify_cell(changed(cell, task=task))] == ["task.name"]
    cheap = cell.record.cost.model_copy(update={"attack": cell.record.cost.attack.model_copy(update={"tokens": 1})})
    assert [m.field for m in verify_cell(changed(cell, cost=cheap))] == ["cost.undo + attack: tokens"]
    falling = [*cell.record.trajectory[:2], cell.record.trajectory[1], *cell.record.trajectory[2:]]
    assert "trajectory.2" in [m.field for m in verify_cell(changed(cell, trajectory=falling))]


@pytest.mark.parametrize(("tokens", "whole"), [(1200, True), (0, False), (600, False), (1201, False)])
def test_a_trajectory_begins_at_what_undoing_the_lock_cost(tokens: int, whole: bool) -> None:
    from harness.bill import Bill
    from harness.records.sections import Point
    from leaderboards.verify import _sums

    record = make_cell().record
    cost = record.cost.model_copy(update={"undo": Bill(tokens=1200, forward_flops=2400.0), "search": None})
    start = Point(step=0, tokens=tokens, flops=2.0 * tokens, score=0.0)
    record = record.model_copy(update={"cost": cost, "trajectory": [start, *record.trajectory[1:]]})
    said, evidence = _sums(record)["trajectory.first"]
    assert (said == evidence) == whole
