"""The two tables of the page, by column: the text that every other format shows, and what the column sorts by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from leaderboards.cell_table import CellRow
from leaderboards.columns import BOARD_COLUMNS, CELL_COLUMNS, CONTEXT
from leaderboards.formats import Column, visible
from leaderboards.html.pool import Pool, short
from leaderboards.ranking import BoardRow
from leaderboards.units import DASH, divide

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
_WITH_KNOWLEDGE: tuple[Column, ...] = (*CELL_COLUMNS[:4], ("knows", lambda row: row.knowledge or DASH),
                                       *CELL_COLUMNS[4:])  # fmt: skip


def board_table(rows: Sequence[BoardRow], pool: Pool) -> list[dict[str, Any]]:
    """Columns of the ranking, in the order of the other formats."""
    return _columns(rows, BOARD_COLUMNS, BOARD_NUMBERS, pool)


def cell_table(rows: Sequence[CellRow], pool: Pool) -> list[dict[str, Any]]:
    """Columns of the cells."""
    return _columns(rows, _WITH_KNOWLEDGE, CELL_NUMBERS, pool)


def _columns(
    rows: Sequence[Any], columns: Sequence[Column], numbers: dict[str, Number], pool: Pool
) -> list[dict[str, Any]]:
    found = []
    for title, show in columns:
        column = {"title": title, "text": [pool.add(visible(show(row))) for row in rows], "context": title in CONTEXT}
        if title in numbers:
            column["number"] = [short(numbers[title](row)) for row in rows]
        found.append(column)
    return found
