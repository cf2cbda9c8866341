"""Everything the page shows, as one JSON value: the rows of the other formats, and what stands behind each of them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from harness.bill import Bill
from harness.numbers.robustness import AttackOutcome
from harness.records.record import Record
from harness.records.sections import Interval
from leaderboards import units
from leaderboards.cell_table import CellRow, cells_of
from leaderboards.formats import visible
from leaderboards.html import curves
from leaderboards.html.pool import Pool, short
from leaderboards.html.reproduce import HEAD, TAIL, sections
from leaderboards.html.tables import board_table, cell_table
from leaderboards.load import Results
from leaderboards.ranking import BoardRow, rank
from leaderboards.rows import notes
from leaderboards.standing import Standing
from leaderboards.summary import BILL_LINES

_STAGES = ("lock", "control", "undo", "search", "attack", "reference")
_SIDES = ("base", "locked", "attacked", "reference")


def payload(results: Results, rows: Sequence[BoardRow] | None = None) -> dict[str, Any]:
    """The page's data.

    Args:
        results: records and items.
        rows: `rank(results.cells)`, where that is known already: it is most of the work.
    """
    rows = rank(results.cells) if rows is None else rows
    records = {cell.record.id: cell.record for cell in results.cells}
    cells = cells_of(results.cells)
    pool, place = Pool(), {row.id: index for index, row in enumerate(cells)}
    data = {
        "version": version("lockbench"),
        "shell": [HEAD, TAIL],
        "stages": list(_STAGES), "sides": list(_SIDES), "bill": [label for label, _, _ in BILL_LINES],
        "board": board_table(rows, pool),
        "locks": [_lock(row, records, place, pool) for row in rows],
        "cells": cell_table(cells, pool),
        "ids": [row.id for row in cells],
        "details": [_cell(row, records[row.id], pool) for row in cells],
        "notes": [visible(note) for note in notes(rows, results)],
    }  # fmt: skip
    return {**data, "pool": pool.values}


def _lock(row: BoardRow, records: dict[str, Record], place: dict[str, int], pool: Pool) -> dict[str, Any]:
    """One row of the ranking, and its page."""
    ids = [id_ for outcome in row.attacks for id_ in outcome.ids] + [cell.id for cell in row.excluded]
    errors = next((records[id_].layer_errors for id_ in ids if records[id_].layer_errors), {})
    whole = Standing(rank=row.rank, robustness=row.robustness, worst_attack=row.worst_attack, n_attacks=row.n_attacks)
    return {
        "key": row.key,
        "views": {name: _view(standing) for name, standing in {"code": whole, **row.by_knowledge}.items()},
        "standard": {**_view(row.standard), "suite": row.standard.n_suite or 0,
                     "missing": [visible(name) for name in row.standard.missing]},
        "bounded": _interval(row.bounded),
        "best_reference": visible(row.best_reference or units.DASH),
        "recover": {level: _cost(cost.flops, cost.ratio, cost.censored, cost.reason)
                    for level, cost in row.cost_to_recover.items()},
        "attacks": [_outcome(outcome, records, place) for outcome in row.attacks],
        "excluded": [[place[cell.id], visible(cell.attack), visible(cell.reason)] for cell in row.excluded],
        "warnings": [visible(text) for text in row.warnings],
        "layers": pool.maybe([[visible(name), short(error)] for name, error in errors.items()]),
    }  # fmt: skip


def _view(standing: Standing) -> dict[str, Any]:
    worst = visible(standing.worst_attack or units.DASH)
    return {"rank": standing.rank, "worst": worst, "n": standing.n_attacks, **_interval(standing.robustness)}


def _outcome(outcome: AttackOutcome, records: dict[str, Record], place: dict[str, int]) -> dict[str, Any]:
    name = records[outcome.ids[0]].name("attack")
    return {"label": visible(outcome.label), "name": visible(name), "cells": [place[id_] for id_ in outcome.ids],
            "memory": outcome.out_of_memory, "collapsed": outcome.collapsed, **_interval(outcome.recovery)}  # fmt: skip


def _cell(row: CellRow, record: Record, pool: Pool) -> dict[str, Any]:
    """What the page of a cell shows beyond its row; keys are short because there is one a record."""
    cost, attacker, made = record.cost, record.cost.attacker(), record.provenance
    bills = [getattr(cost, stage) for stage in _STAGES]
    kept = [getattr(record.utility, side) for side in _SIDES[:3]]
    commit = f"{(made.code.commit or 'no commit')[:12]}{' (with changes)' if made.code.dirty else ''}"
    about = {"code": f"{made.code.version or 'uninstalled'}, {commit}", "finished": made.finished,
             "machine": ", ".join(filter(None, (made.machine.cpu, made.machine.platform, made.machine.device))),
             "packages": ", ".join(f"{name} {found}" for name, found in made.packages.items() if found),
             "weights of the base": made.weights.base, "weights of the lock": made.weights.locked,
             "trained": f"{len(made.targets)} tensors or modules"}  # fmt: skip
    detail = {
        "reason": pool.maybe(visible(row.reason or "")),
        "spec": [pool.add(line) for line in sections(record)],
        "flags": [pool.add([flag.severity, visible(flag.flag), visible(flag.detail)]) for flag in record.validity],
        "score": [pool.add(units.with_ends(getattr(record.score, side), 3)) for side in _SIDES],
        "unit": pool.add(visible(record.score.unit or record.task.metric)),
        "kept": [pool.add(units.number(side.retention if side else None)) for side in kept],
        "gains": [pool.add(units.with_ends(gain, 3)) for gain in (record.gain, record.reference_gain)],
        "recover": pool.maybe([[level, *_cost(c.flops, c.ratio, c.censored, c.reason)]
                               for level, c in record.cost_to_recover.items()]),
        "bills": [_bill(bill, pool) for bill in bills],
        "about": pool.add([[key, visible(value)] for key, value in about.items() if value]),
        "flops": short(attacker.flops) if attacker else None,
        "memory": _memory(cost.attack),
        "path": pool.maybe(curves.recovery_path(record)),
        "base": pool.maybe(curves.reference_path(record)),
        "search": pool.maybe(curves.search_curves(record)),
        "rate": curves.learning_rate(record),
    }  # fmt: skip
    return {key: value for key, value in detail.items() if value is not None}


def _bill(bill: Bill | None, pool: Pool) -> int | None:
    """All cells of a lock have its bill, and all locks under an attack the bill of its reference."""
    if bill is None:
        return None
    return pool.made(bill.model_dump_json(), lambda: [show(get(bill)) for _, get, show in BILL_LINES])


def _memory(bill: Bill | None) -> list[int | None] | None:
    """Bytes kept for backward, largest during backward, largest on the device."""
    if bill is None:
        return None
    return [bill.kept_for_backward_bytes or None, bill.peak_backward_bytes or None, bill.peak_device_bytes]


def _interval(interval: Interval) -> dict[str, Any]:
    found = {"value": short(interval.value), "low": short(interval.low), "high": short(interval.high)}
    return {**found, "text": units.with_ends(interval), "reason": visible(interval.reason or "")}


def _cost(flops: float | None, ratio: float | None, censored: bool, reason: str | None) -> list[str]:
    if flops is None:
        return ["not within the budget" if censored else units.DASH, visible(reason or "")]
    return [units.count(flops, "FLOP"), f"{units.ratio(ratio)} the base's" if ratio is not None else ""]
