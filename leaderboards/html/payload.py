"""Everything the page shows, as one JSON value: the rows of the other formats, and what stands behind each of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any

from harness.numbers.labels import label_of, labels
from harness.numbers.robustness import AttackOutcome
from harness.records.items import SIDES
from harness.records.sections import STAGES, Interval
from leaderboards import units
from leaderboards.formats import visible
from leaderboards.html.pieces import Part, Piece, cost_texts
from leaderboards.html.pool import NOTHING, Pool, moved, short
from leaderboards.html.reproduce import HEAD, TAIL
from leaderboards.html.tables import board_table, cell_table
from leaderboards.load import Skipped
from leaderboards.ranking import BoardRow
from leaderboards.rows import notes
from leaderboards.standing import Standing
from leaderboards.summary import BILL_LINES

Places = list[int | None]
"""`moved`."""


def payload(
    parts: Sequence[Part], rows: Sequence[BoardRow], skipped: Sequence[Skipped] = ()
) -> tuple[dict[str, Any], Pool]:
    """The page's data, and the pool that its numbers stand for. It is the same however the cells are parted.

    Args:
        parts: the cells.
        rows: the ranking of them.
        skipped: what was left out.
    """
    pool = Pool()
    board = board_table(rows, pool)
    cells = [(piece, there) for part in parts for there in [moved(part.texts, pool)] for piece in part.pieces]
    defenses, attacks = _named(piece.defense for piece, _ in cells), _named(piece.attack for piece, _ in cells)
    named = {piece.id: (defenses[piece.defense], attacks[piece.attack]) for piece, _ in cells}
    cells.sort(key=lambda cell: (*cell[0].context, *named[cell[0].id], cell[0].seed, cell[0].id))
    places = {piece.id: index for index, (piece, _) in enumerate(cells)}
    data = {
        "version": version("lockbench"),
        "shell": [HEAD, TAIL],
        "stages": list(STAGES), "sides": list(SIDES), "bill": [label for label, _, _ in BILL_LINES],
        "board": board,
        "locks": [_lock(row, [cells[places[id_]] for id_ in _ids(row)], places) for row in rows],
        "cells": cell_table(cells, [named[piece.id] for piece, _ in cells], pool),
        "ids": [piece.id for piece, _ in cells],
        "details": [_detail(piece, there) for piece, there in cells],
        "notes": [visible(note) for note in notes(rows, skipped)],
    }  # fmt: skip
    return data, pool


def _named(choices: Iterable[str]) -> dict[str, str]:
    """What locks, or attacks, are called beside each other; by their JSON."""
    chosen = {text: json.loads(text) for text in dict.fromkeys(choices)}
    known = labels(list(chosen.values()))
    return {text: label_of(known, choice) for text, choice in chosen.items()}


def _detail(piece: Piece, there: Places) -> dict[str, Any]:
    """The page of a cell, without what is not there."""
    found = {key: [there[one] for one in place] if isinstance(place, list) else there[place]
             for key, place in piece.places.items()}  # fmt: skip
    return {key: value for key, value in (found | piece.plain).items() if value is not None}


def _ids(row: BoardRow) -> list[str]:
    return [id_ for outcome in row.attacks for id_ in outcome.ids] + [cell.id for cell in row.excluded]


def _lock(row: BoardRow, cells: Sequence[tuple[Piece, Places]], place: dict[str, int]) -> dict[str, Any]:
    """One row of the ranking, and its page; `cells` are those of `_ids`."""
    names = {piece.id: piece.name for piece, _ in cells}
    layers = next((there[piece.layers] for piece, there in cells if piece.layers != NOTHING), None)
    whole = Standing(rank=row.rank, robustness=row.robustness, worst_attack=row.worst_attack, n_attacks=row.n_attacks)
    return {
        "key": row.key,
        "views": {name: _view(standing) for name, standing in {"code": whole, **row.by_knowledge}.items()},
        "standard": {**_view(row.standard), "suite": row.standard.n_suite or 0,
                     "missing": [visible(name) for name in row.standard.missing]},
        "bounded": _interval(row.bounded),
        "best_reference": visible(row.best_reference or units.DASH),
        "recover": {level: cost_texts(cost.flops, cost.ratio, cost.censored, cost.reason)
                    for level, cost in row.cost_to_recover.items()},
        "attacks": [_outcome(outcome, names, place) for outcome in row.attacks],
        "excluded": [[place[cell.id], visible(cell.attack), visible(cell.reason)] for cell in row.excluded],
        "warnings": [visible(text) for text in row.warnings],
        "layers": layers,
    }  # fmt: skip


def _view(standing: Standing) -> dict[str, Any]:
    worst = visible(standing.worst_attack or units.DASH)
    return {"rank": standing.rank, "worst": worst, "n": standing.n_attacks, **_interval(standing.robustness)}


def _outcome(outcome: AttackOutcome, names: dict[str, str], place: dict[str, int]) -> dict[str, Any]:
    name = visible(names[outcome.ids[0]])
    return {"label": visible(outcome.label), "name": name, "cells": [place[id_] for id_ in outcome.ids],
            "memory": outcome.out_of_memory, "collapsed": outcome.collapsed, **_interval(outcome.recovery)}  # fmt: skip


def _interval(interval: Interval) -> dict[str, Any]:
    found = {"value": short(interval.value), "low": short(interval.low), "high": short(interval.high)}
    return {**found, "text": units.with_ends(interval), "reason": visible(interval.reason or "")}
