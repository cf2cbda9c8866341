"""A row a cell, whatever its outcome."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from harness.numbers.labels import attack_of, label_of, labels
from harness.numbers.robustness import Cell
from harness.records.record import Record
from harness.records.sections import Interval
from harness.settings import Settings
from leaderboards.units import budget_label


class CellRow(Settings):
    """One cell."""

    id: str
    """Cell."""
    status: str
    """How it ended."""
    model: str
    """Base."""
    defense: str
    """Lock."""
    attack: str
    """Attack."""
    knowledge: str | None = None
    """What the attacker knew of the lock."""
    task: str
    """Task."""
    seed: int
    """Root seed."""
    budget: str
    """Budget."""
    recovery: Interval
    """Against the cell's own reference."""
    gain: Interval
    """attacked - locked."""
    reference_gain: Interval
    """reference - base."""
    collapsed: bool | None = None
    """Whether the attacked model collapsed."""
    attack_flops: float | None = None
    """Undo, search and attack."""
    reference_flops: float | None = None
    """The same on the base."""
    kept_bytes: int | None = None
    """Kept for backward by the attack."""
    reference_kept_bytes: int | None = None
    """Kept for backward by the reference."""
    flags: list[str] = Field(default_factory=list)
    """Validity findings."""
    reason: str | None = None
    """Why it did not end complete, or recovery is undefined."""


def cells_of(cells: Sequence[Cell]) -> list[CellRow]:
    """The rows of `cell_rows`."""
    records = [cell.record for cell in cells]
    chosen = [attack_of(record) for record in records]
    defenses, attacks = labels([record.spec["defense"] for record in records]), labels(chosen)
    rows = [row_of(record, label_of(defenses, record.spec["defense"]), label_of(attacks, attack))
            for record, attack in zip(records, chosen, strict=True)]  # fmt: skip
    return sorted(rows, key=lambda row: (row.model, row.task, row.budget, row.defense, row.attack, row.seed, row.id))


def row_of(record: Record, defense: str = "", attack: str = "") -> CellRow:
    """The row of one cell; what its lock and its attack are called follows from which other cells there are."""
    seed, attacker, reference = record.spec["seed"], record.cost.attacker(), record.cost.reference
    return CellRow.model_construct(  # all of it comes out of a record
        id=record.id, status=record.status, model=record.name("model"), defense=defense, attack=attack,
        knowledge=record.provenance.knowledge, task=record.name("task"), seed=int(seed) if isinstance(seed, int) else 0,
        budget=budget_label(record.spec["budget"]), recovery=record.recovery, gain=record.gain,
        reference_gain=record.reference_gain, collapsed=record.utility.collapsed,
        attack_flops=attacker.flops if attacker else None, reference_flops=reference.flops if reference else None,
        kept_bytes=record.cost.attack.kept_for_backward_bytes if record.cost.attack else None,
        reference_kept_bytes=reference.kept_for_backward_bytes if reference else None,
        flags=[f"{flag.severity}: {flag.flag}" for flag in record.validity],
        reason=record.status_reason or record.recovery.reason,
    )  # fmt: skip
