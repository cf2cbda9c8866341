"""The two tables of the page, by column: the text that every other format shows, and what the column sorts by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from leaderboards.cell_table import CellRow
from leaderboards.columns import BOARD_COLUMNS, CELL_COLUMNS, CONTEXT
from leaderboards.formats import Column, visible
from leaderboards.html.pool import Pool, short
from leaderboards.ranking import BoardRow
from leaderboards.units import DASH, divide

if TYPE_CHECKING:
    from leaderboards.html.pieces import Piece

Number = Callable[[Any], float | None]

BOARD_NUMBERS: dict[str, Number] = {
    "rank": lambda row: row.rank,
    "robustness": lambda row: row.robustness.low,
    "standard": lambda row: row.standard.robustness.low,
    "utility kept": lambda row: row.utility_retention,
    "perplexity": lambda row: row.perplexity_ratio,
    "KL": lambda row: row.kl,
    "lock FLOPs": lambda row: row.lock_flops,
    "kept bytes": lambda row: row.kept_bytes_ratio,
    "recover 0.9 at": lambda row: row.cost_to_recover["0.9"].flops,
    "attacks": lambda row: row.n_attacks,
}
"""What a column of numbers sorts by; every other column sorts by its text."""
CELL_NUMBERS: dict[str, Number] = {
    "seed": lambda row: row.seed,
    "recovery": lambda row: row.recovery.value,
    "FLOPs": lambda row: row.attack_flops,
    "over reference": lambda row: divide(row.attack_flops, row.reference_flops),
    "kept": lambda row: row.kept_bytes,
    "reference kept": lambda row: row.reference_kept_bytes,
}
NAMED = ("defense", "attack")
"""Columns of cells that follow from which other cells there are."""
_CELLS: tuple[Column, ...] = (*CELL_COLUMNS[:4], ("knows", lambda row: row.knowledge or DASH), *CELL_COLUMNS[4:])
_OWN = [(title, show) for title, show in _CELLS if title not in NAMED]
_PLACES = {title: place for place, (title, _) in enumerate(_OWN)}
_NUMBERS = {title: place for place, title in enumerate(CELL_NUMBERS)}


def board_table(rows: Sequence[BoardRow], pool: Pool) -> list[dict[str, Any]]:
    """Columns of the ranking, in the order of the other formats."""
    found = []
    for title, show in BOARD_COLUMNS:
        column = _column(title, [pool.add(visible(show(row))) for row in rows])
        if title in BOARD_NUMBERS:
            column["number"] = [short(BOARD_NUMBERS[title](row)) for row in rows]
        found.append(column)
    return found


def cell_texts(row: CellRow, pool: Pool) -> list[int]:
    """What a cell shows in the columns of cells, but for `NAMED`."""
    return [pool.add(visible(show(row))) for _, show in _OWN]


def cell_numbers(row: CellRow) -> list[float | None]:
    """What a cell sorts by in the columns of numbers."""
    return [short(number(row)) for number in CELL_NUMBERS.values()]


def cell_table(
    cells: Sequence[tuple[Piece, list[int | None]]], names: Sequence[tuple[str, str]], pool: Pool
) -> list[dict[str, Any]]:
    """Columns of the cells.

    Args:
        cells: in their order, each with what its numbers are in the pool of the page (`pool.moved`).
        names: of each its defense and its attack.
        pool: of the page.
    """
    found = []
    for title, _ in _CELLS:
        if title in NAMED:
            place = NAMED.index(title)
            texts: list[int | None] = [pool.add(visible(name[place])) for name in names]
        else:
            place = _PLACES[title]
            texts = [there[piece.texts[place]] for piece, there in cells]
        column = _column(title, texts)
        if title in _NUMBERS:
            place = _NUMBERS[title]
            column["number"] = [piece.numbers[place] for piece, _ in cells]
        found.append(column)
    return found


def _column(title: str, texts: Sequence[int | None]) -> dict[str, Any]:
    return {"title": title, "text": texts, "context": title in CONTEXT}
