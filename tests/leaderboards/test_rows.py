from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from record_factory import make_cell

from harness.records.sections import Flag
from leaderboards.cell_table import cells_of
from leaderboards.load import Results, Skipped
from leaderboards.ranking import kept_ratio, rank
from leaderboards.rows import board_table, cell_rows
from leaderboards.units import budget_label

ERROR = (Flag(flag="unmoved", severity="error", detail="x"),)


def cells_for(**recoveries: float) -> list[Any]:
    return [
        make_cell(defense=d, attack=a, recovery=r, utility=0.97)
        for d, r in recoveries.items()
        for a in ("full", "lora")
    ]


def test_locks_are_ranked_by_their_lower_bound() -> None:
    rows = rank(cells_for(none=1.0, weak=0.6, strong=0.1))
    assert [(row.rank, row.defense) for row in rows] == [(1, "strong"), (2, "weak"), (3, "none")]
    assert [row.n_attacks for row in rows] == [2, 2, 2]
    lows = [row.robustness.low for row in rows]
    assert lows == sorted(lows, reverse=True)


def test_overlapping_locks_share_a_rank() -> None:
    rows = rank(cells_for(one=0.5, other=0.51, far=0.99))
    assert [row.rank for row in rows] == [1, 1, 3]


def test_models_tasks_and_budgets_are_ranked_apart() -> None:
    cells = [make_cell(), make_cell(model="big"), make_cell(task="facts"), make_cell(budget={"steps": 5})]
    rows = rank(cells)
    assert len(rows) == 4
    assert {row.rank for row in rows} == {1}


def test_a_classifier_made_for_something_else_is_another_model() -> None:
    cells = []
    for own in ("mnist", "digits"):
        cell = make_cell(model="resnet18", task="kmnist")
        spec = {**cell.record.spec, "own": {"name": own}}
        cells.append(dataclasses.replace(cell, record=cell.record.model_copy(update={"spec": spec})))
    rows = rank(cells)
    assert [(row.rank, row.n_attacks) for row in rows] == [(1, 1), (1, 1)]
    assert len({row.key for row in rows}) == 2


def test_unranked_locks_come_last_with_a_reason() -> None:
    rows = rank([make_cell(defense="lucky", status="out_of_memory"), make_cell(defense="dlr")])
    assert [row.defense for row in rows] == ["dlr", "lucky"]
    assert rows[1].rank is None
    assert rows[1].out_of_memory == ["lora"]
    assert rows[1].robustness.reason


def test_settings_of_a_lock_are_told_apart() -> None:
    rows = rank([make_cell(defense={"name": "dlr", "depth": depth}) for depth in (8, 16)])
    assert {row.defense for row in rows} == {"dlr (depth=8)", "dlr (depth=16)"}


@pytest.mark.parametrize(("attacked", "reference", "ratio"), [(8, 8, 3.0), (16, 8, 1.5), (4, 8, 6.0), (None, 8, 3 * 8)])
def test_kept_bytes_are_compared_in_micro_batches_of_one_size(
    attacked: int | None, reference: int, ratio: float
) -> None:
    """A search may choose another batch on either model; that is no memory of the lock's."""
    from harness.search.curve import SearchCurve, Searches

    made = [SearchCurve(attack={"name": "full"} if size is None else {"per_device_train_batch_size": size})
            for size in (attacked, reference)]  # fmt: skip
    cell = make_cell(attack="full", kept=6 << 20)
    record = cell.record.model_copy(update={"search": Searches(attacked=made[0], reference=made[1])})
    assert kept_ratio(record) == pytest.approx(ratio)


def test_costs_and_exclusions_are_carried() -> None:
    (row,) = rank([make_cell(attack="full", recovery=1.0, kept=6 << 20), make_cell(attack="lora", flags=ERROR)])
    assert row.kept_bytes_ratio == pytest.approx(3.0)
    assert row.cost_to_recover["0.9"].flops is not None
    assert row.perplexity_ratio == pytest.approx(1.0)
    assert [cell.attack for cell in row.excluded] == ["lora"]
    (weak,) = rank([make_cell(recovery=0.2)])
    assert weak.cost_to_recover["0.9"].censored


def test_every_cell_has_a_row_whatever_its_outcome() -> None:
    cells = [
        make_cell(),
        make_cell(attack="full", status="failed", reason="boom"),
        make_cell(attack="qlora", flags=ERROR),
    ]
    rows = cells_of(cells)
    assert {row.id for row in rows} == {cell.record.id for cell in cells}
    assert {row.reason for row in rows if row.status == "failed"} == {"boom"}


def test_what_all_rows_share_moves_into_the_notes() -> None:
    table = board_table(rank(cells_for(dlr=0.5, none=1.0)), [Skipped("junk", "partial")])
    assert "model" not in [title for title, _ in table.columns]
    assert table.notes[0] == "model: tiny; task: python_source; budget: steps=100"
    assert "junk: skipped, partial" in table.notes
    mixed = cell_rows(Results([make_cell(), make_cell(model="big")], []))
    assert "model" in [title for title, _ in mixed.columns]


def test_budgets_read_like_the_option() -> None:
    assert budget_label({"steps": 200, "memory": None, "flops": 3e12}) == "steps=200 flops=3e+12"
    assert budget_label({"steps": None}) == "unlimited"
