"""The two tables of a folder of results, the ranking and the cells, with the notes below them; `formats` shows them."""

from __future__ import annotations

from collections.abc import Sequence

from leaderboards.cell_table import CellRow, cells_of
from leaderboards.columns import BOARD_COLUMNS, CELL_COLUMNS, CONTEXT
from leaderboards.formats import Column, Table
from leaderboards.load import Results, Skipped
from leaderboards.ranking import BoardRow
from leaderboards.units import with_ends

HEAD = (
    "Robustness is 1 - the largest recovery, with its 95 % interval; locks whose intervals overlap share a rank. "
    "Ranks are over all attacks; `standard` is over those of the standard suite (so many of them were run)."
)


def board_table(rows: Sequence[BoardRow], skipped: Sequence[Skipped]) -> Table:
    """The ranking: by model, task and budget, best lower bound of robustness first, unranked last."""
    return _table(rows, BOARD_COLUMNS, notes(rows, skipped))


def cell_rows(results: Results) -> Table:
    """One row a cell, whatever its outcome, by model, task, budget, defense, attack, seed."""
    return _table(cells_of(results.cells), CELL_COLUMNS, notes([], results.skipped))


def _table(rows: Sequence[BoardRow] | Sequence[CellRow], columns: Sequence[Column], below: Sequence[str]) -> Table:
    """Rows with notes; a model, task or budget that all share goes from a column of its own into the notes."""
    same = {title: show(rows[0]) for title, show in columns
            if title in CONTEXT and len({show(row) for row in rows}) == 1}  # fmt: skip
    shared = ["; ".join(f"{title}: {value}" for title, value in same.items())] if same else []
    return Table(rows, [column for column in columns if column[0] not in same], [*shared, *below])


def notes(rows: Sequence[BoardRow], skipped: Sequence[Skipped]) -> list[str]:
    """What the ranking leaves out, and why a lock has no rank."""
    lines = [HEAD] if rows else []
    for row in rows:
        where = f"{row.model} / {row.defense} / {row.task}"
        lines += [f"{where}: not counted: {cell.attack} ({cell.id[:8]}): {cell.reason}" for cell in row.excluded]
        lines += [f"{where}: {row.robustness.reason}"] if row.robustness.reason else []
        lines += [f"{where}: warning: {text}" for text in row.warnings]
        if row.collapsed:
            bounded = f"robustness {with_ends(row.bounded)}" if row.bounded.value is not None else row.bounded.reason
            lines.append(f"{where}: collapsed: {', '.join(row.collapsed)}; counted as failed attacks: {bounded}")
    return lines + [f"{one.folder}: skipped, {one.reason}" for one in skipped]
