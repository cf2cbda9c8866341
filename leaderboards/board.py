"""What `harness leaderboard` prints: the ranking over all records in a folder, or its cells, in any format.

The page (`html`) has both, from the same rows.
"""

from __future__ import annotations

import gc
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from harness.progress import Said
from leaderboards.groups import Look


def leaderboard(
    folder: Path,
    kind: str = "table",
    *,
    cells: bool = False,
    only: Collection[str] | None = None,
    cache: Path | None = None,
    processes: int = 1,
    progress: Said | None = None,
) -> str:
    """The ranking (or every cell) of an output folder as text, ended by a newline.

    Args:
        folder: what `harness run -o` wrote.
        kind: table, markdown, csv, latex, json or html.
        cells: one row a cell instead of one a lock; the page has both.
        only: ids of the cells that take part; None is all.
        cache: folder that remembers what was read and ranked (`leaderboards.index`); None reads and ranks everything.
        processes: that read and rank side by side, on Linux. They are copies of this one: leave it at 1 in a process
            with threads that hold locks for long.
        progress: hears of it.

    Raises:
        UsageError: nothing readable there, or unknown format.
        Unavailable: the page needs the extra `report`.
    """
    with uncollected():
        return _cells(folder, kind, only, cache, progress) if cells and kind != "html" else \
            _board(Look(folder, only, processes), kind, cache, progress)  # fmt: skip


def _board(look: Look, kind: str, cache: Path | None, progress: Said | None) -> str:
    """A function of its own: the records are gone before the collector could look through them."""
    from leaderboards.gather import gather  # while another process looks
    from leaderboards.index import Index

    with Index(cache) if cache else nullcontext() as index:
        if kind == "html":
            from leaderboards.html.page import page_of
            from leaderboards.html.pieces import part_of

            page = gather(look, part_of, index=index, progress=progress)
            return page_of(page.shown, page.rows, page.skipped) + "\n"
        from leaderboards.formats import render
        from leaderboards.rows import board_table

        found = gather(look, len, index=index, progress=progress)
        return render(board_table(found.rows, found.skipped), kind) + "\n"


def _cells(folder: Path, kind: str, only: Collection[str] | None, cache: Path | None, progress: Said | None) -> str:
    from leaderboards.formats import render
    from leaderboards.index import Index
    from leaderboards.load import load_results
    from leaderboards.rows import cell_rows

    with Index(cache) if cache else nullcontext() as index:
        results = load_results(folder, only, utility=False, index=index, progress=progress)
        return render(cell_rows(results), kind) + "\n"


@contextmanager
def uncollected() -> Iterator[None]:
    """Without the search for unreachable cycles: among a million objects that all live, it was half of the time."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()
