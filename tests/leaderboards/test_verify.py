from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from record_factory import METRIC, make_cell, write_cell

from harness.record import LOG, Record
from harness.robustness import Cell
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


def test_items_that_do_not_pair_are_a_mismatch_not_a_crash() -> None:
    cell = make_cell()
    (mismatch,) = verify_cell(Cell(cell.record, [row for row in cell.items if row.item != "d3" or row.model != "base"]))
    assert mismatch.field == "items"


def test_a_cell_that_cannot_be_read_is_a_mismatch(tmp_path: Path) -> None:
    write_cell(tmp_path, make_cell())
    (write_cell(tmp_path, make_cell(attack="full")) / LOG).write_text("")
    (mismatch,) = verify(tmp_path)
    assert mismatch.field == "record"
