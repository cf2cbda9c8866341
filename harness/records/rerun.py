"""Run recorded cells again and compare: what alone tells a record that was measured from one that was made up.

Nothing of the first run is used: the cache is fresh, and which cells are run is drawn from the system's randomness, so
that nobody can know it beforehand. On the same machine with the same versions every item is the same, bit for bit; on
another one, a score must lie within the interval that the record gives for it. What follows from no item, bills and
how close the locked model is to the base, must be about the same; seconds, energy and what a machine holds may differ.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.records.cell_files import ITEMS
from harness.records.items import SIDES, Item, read_items
from harness.records.recheck import Mismatch
from harness.records.record import Record
from harness.records.sections import STAGES, Interval

if TYPE_CHECKING:
    from harness.numbers.robustness import Cell
    from harness.spec import Spec

Run = Callable[["Spec", Path], Record]
"""Runs a spec into an output folder."""


def rerun(cells: Sequence[Cell], count: int, *, out: Path, run: Run) -> tuple[list[Mismatch], list[str]]:
    """Run `count` of the complete cells again.

    Args:
        cells: records and items.
        count: how many; all where there are fewer.
        out: an empty folder for the new records.
        run: `run_cell` over a cache that holds nothing of the first run.

    Returns:
        The mismatches, and a line a cell.
    """
    complete = [cell for cell in cells if cell.record.status == "complete"]
    chosen = random.SystemRandom().sample(complete, min(count, len(complete)))
    mismatches, notes = [], []
    for cell in chosen:
        try:
            spec = respecified(cell.record)
            again = run(spec, out)
        except UsageError as error:
            notes.append(f"rerun {cell.record.id}: not run: {error}")
            continue
        items = read_items(out / "cells" / again.id / ITEMS)
        mismatches += different(cell.record, again, FAR if _scores(cell.items) == _scores(items) else FARTHER)
        notes.append(f"rerun {cell.record.id}: {_closeness(cell.items, items)}")
    return mismatches, [*notes, f"rerun: {len(chosen)} of {len(complete)} complete cells were drawn"]


def respecified(record: Record) -> Spec:
    """The spec of a record, checked as one from the command line is.

    Raises:
        UsageError: it asks for remote code, or this version makes another cell of it.
    """
    from harness.spec import resolve

    spec = resolve(record.spec)
    if spec.model.trust_remote_code:
        raise UsageError("it asks for a checkpoint's own code; run it by hand if you trust that")
    if spec.id != record.id:
        raise UsageError(f"with this version, or this model folder, its spec is that of another cell, {spec.id}")
    return spec


FAR, FARTHER = 0.1, 2 / 3
"""Share by which counts may differ: of a run that gave the same items, and of one that went another way."""
_NEAR = 1e-3
"""Of KL, agreement and errors, too small to tell anything."""
COUNTS = ("forward_flops", "backward_flops", "tokens", "steps", "kept_for_backward_bytes", "peak_backward_bytes",
          "optimizer_bytes", "gradient_bytes", "trainable_parameters")  # fmt: skip


def different(recorded: Record, again: Record, far: float = FAR) -> list[Mismatch]:
    """What the second run does not bear out: the outcome, a score, recovery, a bill, or fidelity.

    Args:
        recorded: what somebody says.
        again: the second run.
        far: share by which what is counted may differ.
    """
    if again.status != recorded.status:
        return [Mismatch(recorded.id, "status when run again", recorded.status,
                         f"{again.status} ({again.status_reason})")]  # fmt: skip
    pairs = {f"score.{side}": (getattr(recorded.score, side), getattr(again.score, side)) for side in SIDES}
    pairs["recovery"] = (recorded.recovery, again.recovery)
    found = [(name, f"{ours.value} [{ours.low}, {ours.high}]", theirs.value)
             for name, (ours, theirs) in pairs.items() if not _within(ours, theirs)]  # fmt: skip
    counted = [(name, ours, theirs) for name, (ours, theirs) in _on_trust(recorded, again).items()
               if not _about(ours, theirs, far)]  # fmt: skip
    return [Mismatch(recorded.id, f"{name} when run again", *sides) for name, *sides in [*found, *counted]]


def _on_trust(recorded: Record, again: Record) -> dict[str, tuple[float | None, float | None]]:
    """By name, what only a second run tells."""
    pairs: dict[str, tuple[float | None, float | None]] = {}
    for stage in STAGES:
        bills = [getattr(record.cost, stage) for record in (recorded, again)]
        for count in COUNTS:
            ours, theirs = (None if bill is None else getattr(bill, count) for bill in bills)
            pairs[f"cost.{stage}.{count}"] = ours, theirs
    for name in ("kl", "top1_agreement"):
        pairs[f"fidelity.{name}"] = getattr(recorded.fidelity, name), getattr(again.fidelity, name)
    for name in ("parameters", "locked_parameters"):
        pairs[f"model.{name}"] = getattr(recorded.model, name), getattr(again.model, name)
    for name in sorted({*recorded.layer_errors, *again.layer_errors}):
        pairs[f"layer_errors.{name}"] = recorded.layer_errors.get(name), again.layer_errors.get(name)
    return pairs


def _about(ours: float | None, theirs: float | None, far: float) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    return abs(ours - theirs) <= far * max(abs(ours), abs(theirs)) + _NEAR


def _within(recorded: Interval, again: Interval) -> bool:
    if recorded.value is None or again.value is None:
        return recorded.value is None and again.value is None
    low, high = (recorded.value if end is None else end for end in (recorded.low, recorded.high))
    return min(low, recorded.value) <= again.value <= max(high, recorded.value)


def _scores(items: Sequence[Item]) -> dict[tuple[str, str, int | None, str], float]:
    return {(row.model, row.metric, row.seed, row.item): row.score for row in items}


def _closeness(recorded: Sequence[Item], again: Sequence[Item]) -> str:
    ours, theirs = _scores(recorded), _scores(again)
    if ours.keys() != theirs.keys():
        return f"{len(ours.keys() ^ theirs.keys())} items are in one run only"
    same = sum(ours[key] == theirs[key] for key in ours)
    largest = max((abs(ours[key] - theirs[key]) for key in ours), default=0.0)
    return f"{same} of {len(ours)} item scores are equal, the largest difference is {largest:.3g}"
