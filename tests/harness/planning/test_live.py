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
