"""What `harness leaderboard` prints: the ranking over all records in a folder, or its cells, in any format.

The page (`html`) has both, from the same rows.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from leaderboards.formats import render
from leaderboards.load import load_results
from leaderboards.rows import board_rows, cell_rows


def leaderboard(folder: Path, kind: str = "table", *, cells: bool = False, only: Collection[str] | None = None) -> str:
    """The ranking (or every cell) of an output folder as text, ended by a newline.

    Args:
        folder: what `harness run -o` wrote.
        kind: table, markdown, csv, latex, json or html.
        cells: one row a cell instead of one a lock; the page has both.
        only: ids of the cells that take part; None is all.

    Raises:
        UsageError: nothing readable there, or unknown format.
        Unavailable: the page needs the extra `report`.
    """
    results = load_results(folder, only, utility=False)
    if kind == "html":
        from leaderboards.html.page import page

        return page(results) + "\n"
    return render(cell_rows(results) if cells else board_rows(results), kind) + "\n"
