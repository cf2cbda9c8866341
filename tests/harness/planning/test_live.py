"""What a matrix shows while it runs."""

from __future__ import annotations

import pytest

from harness.planning.live import Board
from harness.planning.plan import Job


def test_a_resumed_matrix_counts_the_cells_that_were_found_complete(capsys: pytest.CaptureFixture[str]) -> None:
    board = Board(total=5)
    left = [Job(id="lock", kind="lock", spec={}, title="lock dlr", cells=2),
            *(Job(id=name, kind="cell", spec={}, title=f"cell {name}") for name in ("a", "b"))]  # fmt: skip
    board.plan(left)
    for job in left:
        board.started(job)
        board.ended(job, "done", "complete")
    lock, first, second = capsys.readouterr().err.splitlines()
    assert lock.startswith("lock dlr: done, complete (")
    assert first.startswith("[4/5] cell a: complete (")
    assert second.startswith("[5/5] cell b: complete (")
    assert board.finished == 5


def test_the_live_table_has_a_line_a_running_cell_and_what_is_left() -> None:
    board = Board(total=3)
    jobs = [Job(id=name, kind="cell", spec={}, title=f"cell {name}") for name in ("a", "b", "c")]
    board.plan(jobs)
    for job in jobs[:2]:
        board.started(job)
    board.said(jobs[0], "training", 3, 8)
    table = board.table()
    rows = list(zip(*(column.cells for column in table.columns), strict=True))
    assert [(title, at) for title, _, at in rows] == [("cell a", "training 3/8"), ("cell b", "")]
    assert str(table.caption) == "0 of 3 cells, 1 jobs waiting"
    board.ended(jobs[0], "done", "complete")
    table = board.table()
    assert list(table.columns[0].cells) == ["cell b"]
    assert str(table.caption).startswith("1 of 3 cells, 1 jobs waiting, about ")
