"""Cells that are run again: what a made-up record cannot survive."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from record_factory import make_cell

from harness.bill import Bill
from harness.errors import UsageError
from harness.numbers.robustness import Cell
from harness.records.record import Record
from harness.records.record_files import write_record
from harness.records.rerun import FARTHER, different, rerun, respecified
from harness.spec import Spec, resolve


def recorded(**effects: Any) -> Cell:
    """A made-up cell under a spec that resolves."""
    spec, cell = resolve({"attack": "lora", "seed": effects.get("seed", 0)}), make_cell(**effects)
    record = cell.record.model_copy(update={"spec": spec.model_dump(mode="json"), "id": spec.id})
    return replace(cell, record=record)


class Runner:
    """Writes what the cells' runs gave; counts."""

    def __init__(self, *cells: Cell) -> None:
        self.cells, self.ran = {cell.record.id: cell for cell in cells}, list[str]()

    def __call__(self, spec: Spec, out: Path) -> Record:
        self.ran.append(spec.id)
        cell = self.cells[spec.id]
        return write_record(out / "cells" / spec.id, cell.record, cell.items, "again\n")


def test_an_honest_cell_gives_the_same_again(tmp_path: Path) -> None:
    cell = recorded()
    mismatches, notes = rerun([cell], 3, out=tmp_path, run=Runner(cell))
    assert mismatches == []
    assert f"{len(cell.items)} of {len(cell.items)} item scores are equal, the largest difference is 0" in notes[0]
    assert notes[-1] == "rerun: 1 of 1 complete cells were drawn"


def test_a_made_up_cell_is_found(tmp_path: Path) -> None:
    """Items, figures and seal agree with each other; only the models never gave them."""
    claimed, real = recorded(recovery=0.0), recorded(recovery=0.9)
    mismatches, notes = rerun([claimed], 1, out=tmp_path, run=Runner(real))
    assert {mismatch.field for mismatch in mismatches} == {"score.attacked when run again", "recovery when run again"}
    assert "item scores are equal" in notes[0]


def test_another_machine_may_differ_within_the_interval(tmp_path: Path) -> None:
    cell = recorded()
    near = [replace(row, score=row.score * (1 + 1e-6)) for row in cell.items]
    from harness.numbers.scoring import task_numbers

    numbers = task_numbers(near, cell.record.task.metric, cell.record.score.unit)
    moved = cell.record.model_copy(update={"score": numbers.score, "recovery": numbers.recovery})
    assert rerun([cell], 1, out=tmp_path, run=Runner(Cell(moved, near)))[0] == []


def test_another_outcome_is_a_mismatch() -> None:
    cell = recorded()
    (mismatch,) = different(cell.record, cell.record.model_copy(update={"status": "out_of_memory"}))
    assert mismatch.field == "status when run again"


def test_what_is_drawn_cannot_be_foreseen_and_is_never_drawn_twice(tmp_path: Path) -> None:
    cells = [recorded(seed=seed) for seed in range(4)]
    seen = set()
    for attempt in itertools.count():
        runner = Runner(*cells)
        rerun(cells, 2, out=tmp_path / str(attempt), run=runner)
        assert len(set(runner.ran)) == 2
        seen |= set(runner.ran)
        if len(seen) == 4:
            break
        assert attempt < 50  # the chance to get here honestly is below 1e-13


def test_a_spec_that_asks_for_remote_code_or_is_another_cell_is_not_run(tmp_path: Path) -> None:
    cell = recorded()
    spec = resolve({"attack": "lora", "model": {"name": "tiny", "trust_remote_code": True}})
    code = replace(cell, record=cell.record.model_copy(update={"spec": spec.model_dump(mode="json"), "id": spec.id}))
    moved = replace(cell, record=cell.record.model_copy(update={"id": "f" * 16}))
    runner = Runner(cell)
    mismatches, notes = rerun([code, moved], 2, out=tmp_path, run=runner)
    assert (mismatches, runner.ran) == ([], [])
    assert sum("not run" in note for note in notes) == 2
    with pytest.raises(UsageError, match="own code"):
        respecified(code.record)


@pytest.mark.parametrize(("change", "field"), [
    (lambda record: {"fidelity": record.fidelity.model_copy(update={"kl": 0.0})}, "fidelity.kl"),
    (lambda record: {"cost": record.cost.model_copy(update={
        "lock": record.cost.lock.model_copy(update={"forward_flops": 1.0})})}, "cost.lock.forward_flops"),
    (lambda record: {"cost": record.cost.model_copy(update={
        "attack": record.cost.attack.model_copy(update={"kept_for_backward_bytes": 1})})},
     "cost.attack.kept_for_backward_bytes"),
    (lambda record: {"cost": record.cost.model_copy(update={"lock": None})}, "cost.lock.tokens"),
    (lambda record: {"layer_errors": {"0": 1e-2}}, "layer_errors.0"),
])  # fmt: skip
def test_what_follows_from_no_item_is_compared_with_the_second_run(tmp_path: Path, change: Any, field: str) -> None:
    bill = Bill(forward_flops=2e12, backward_flops=4e12, tokens=10**6, steps=100, kept_for_backward_bytes=6 << 20)
    cell = recorded()
    real = cell.record.model_copy(update={
        "fidelity": cell.record.fidelity.model_copy(update={"kl": 0.4}), "layer_errors": {"0": 0.3},
        "cost": cell.record.cost.model_copy(update={"lock": bill, "attack": bill.model_copy(update={"seconds": 9.0})})})
    claimed = replace(cell, record=real.model_copy(update=change(real)))
    honest = replace(cell, record=real)
    mismatches, _ = rerun([claimed], 1, out=tmp_path / "a", run=Runner(honest))
    assert f"{field} when run again" in {mismatch.field for mismatch in mismatches}
    assert rerun([honest], 1, out=tmp_path / "b", run=Runner(honest))[0] == []


def test_a_run_that_went_another_way_may_have_cost_up_to_three_times_as_much() -> None:
    cell = recorded()
    bill = Bill(forward_flops=1e12, tokens=1000, steps=10)
    one, twice, tenfold = (cell.record.model_copy(update={"cost": cell.record.cost.model_copy(update={
        "attack": bill.model_copy(update={"forward_flops": 1e12 * factor})})}) for factor in (1, 2, 10))  # fmt: skip
    assert different(one, twice, FARTHER) == []
    assert [mismatch.field for mismatch in different(one, twice)] == ["cost.attack.forward_flops when run again"]
    assert different(one, tenfold, FARTHER)
