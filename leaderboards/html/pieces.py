"""What the page shows of each cell, made where its record is, so that the record need not be kept.

Numbers stand for JSON values in the pool of the part that a cell was made in. Names that follow from which other cells
there are, of locks and attacks that share one, are left to `payload`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from harness.bill import Bill
from harness.numbers.robustness import Cell
from harness.records.items import SIDES
from harness.records.record import Record
from harness.records.sections import STAGES
from leaderboards import units
from leaderboards.cell_table import CellRow, row_of
from leaderboards.formats import visible
from leaderboards.html import curves
from leaderboards.html.pool import NOTHING, Pool, quick_json, short
from leaderboards.html.reproduce import section
from leaderboards.html.tables import cell_numbers, cell_texts
from leaderboards.summary import BILL_LINES

Places = dict[str, int | list[int]]


class Piece(NamedTuple):
    """One cell."""

    id: str
    context: tuple[str, str, str]
    """Model, task and budget, as the tables name them."""
    seed: int
    """Root seed."""
    defense: str
    """The lock with its settings, as JSON; one JSON for one lock with one order of settings."""
    attack: str
    """The attack with its settings, as canonical JSON."""
    name: str
    """The attack's name."""
    texts: list[int]
    """Its row in the table of cells, but for what `tables.NAMED` has."""
    numbers: list[float | None]
    """What that table sorts by, in the columns that sort by a number."""
    layers: int
    """Error by layer that the lock distilled."""
    places: Places
    """What its own page shows: values in the pool."""
    plain: dict[str, Any]
    """And others."""


@dataclass(frozen=True)
class Part:
    """Some cells, and the pool that their numbers stand for."""

    pieces: list[Piece]
    texts: list[str]


def part_of(cells: Sequence[Cell]) -> Part:
    """The cells, made ready for the page."""
    pool = Pool()
    return Part([_piece(cell, pool) for cell in cells], pool.texts)


def _piece(cell: Cell, pool: Pool) -> Piece:
    record, row = cell.record, row_of(cell.record)
    layers = [[visible(name), short(error)] for name, error in record.layer_errors.items()]
    return Piece(
        id=record.id, context=(row.model, row.task, row.budget), seed=row.seed,
        defense=quick_json(record.spec["defense"]), attack=cell.attack, name=record.name("attack"),
        texts=cell_texts(row, pool), numbers=cell_numbers(row), layers=pool.maybe(layers),
        places=_places(row, record, pool), plain=_plain(record),
    )  # fmt: skip


def _places(row: CellRow, record: Record, pool: Pool) -> Places:
    """What the page of a cell shows beyond its row; keys are short because there is one a record."""
    made = record.provenance
    kept = [getattr(record.utility, side) for side in SIDES[:3]]
    commit = f"{(made.code.commit or 'no commit')[:12]}{' (with changes)' if made.code.dirty else ''}"
    about = {"code": f"{made.code.version or 'uninstalled'}, {commit}", "finished": made.finished,
             "machine": ", ".join(filter(None, (made.machine.cpu, made.machine.platform, made.machine.device))),
             "packages": ", ".join(f"{name} {found}" for name, found in made.packages.items() if found),
             "weights of the base": made.weights.base, "weights of the lock": made.weights.locked,
             "trained": f"{len(made.targets)} tensors or modules"}  # fmt: skip
    return {
        "reason": pool.maybe(visible(row.reason or "")),
        "spec": [_section(key, value, pool) for key, value in record.spec.items()],
        "flags": [pool.add([flag.severity, visible(flag.flag), visible(flag.detail)]) for flag in record.validity],
        "score": [pool.add(units.with_ends(getattr(record.score, side), 3)) for side in SIDES],
        "unit": pool.add(visible(record.score.unit or record.task.metric)),
        "kept": [pool.add(units.number(side.retention if side else None)) for side in kept],
        "gains": [pool.add(units.with_ends(gain, 3)) for gain in (record.gain, record.reference_gain)],
        "recover": pool.maybe([[level, *cost_texts(c.flops, c.ratio, c.censored, c.reason)]
                               for level, c in record.cost_to_recover.items()]),
        "bills": [_bill(getattr(record.cost, stage), pool) for stage in STAGES],
        "about": pool.add([[key, visible(value)] for key, value in about.items() if value]),
        "path": pool.maybe(curves.recovery_path(record)),
        "base": pool.maybe(curves.reference_path(record)),
        "search": pool.maybe(curves.search_curves(record)),
    }  # fmt: skip


def _plain(record: Record) -> dict[str, Any]:
    attacker = record.cost.attacker()
    return {"flops": short(attacker.flops) if attacker else None, "memory": _memory(record.cost.attack),
            "rate": curves.learning_rate(record)}  # fmt: skip


def _section(key: str, value: Any, pool: Pool) -> int:
    """Most settings of a cell are those of its neighbours."""
    return pool.made(f"{key}={quick_json(value)}", lambda: section(key, value))


def _bill(bill: Bill | None, pool: Pool) -> int:
    """All cells of a lock have its bill, and all locks under an attack the bill of its reference."""
    if bill is None:
        return NOTHING
    return pool.made(bill.model_dump_json(), lambda: [show(get(bill)) for _, get, show in BILL_LINES])


def _memory(bill: Bill | None) -> list[int | None] | None:
    """Bytes kept for backward, largest during backward, largest on the device."""
    if bill is None:
        return None
    return [bill.kept_for_backward_bytes or None, bill.peak_backward_bytes or None, bill.peak_device_bytes]


def cost_texts(flops: float | None, ratio: float | None, censored: bool, reason: str | None) -> list[str]:
    """What a cost to recover shows: the FLOPs or why there are none, and over the base's or the reason."""
    if flops is None:
        return ["not within the budget" if censored else units.DASH, visible(reason or "")]
    return [units.count(flops, "FLOP"), f"{units.ratio(ratio)} the base's" if ratio is not None else ""]
