"""What the charts of the page draw, from one record each. Numbers are rounded for drawing; tables show the record's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.records.record import Record
from harness.records.sections import Point
from harness.search.curve import SearchCurve
from leaderboards.html.pool import short

Pair = list[float | None]


def recovery_path(record: Record) -> list[Pair]:
    """[FLOPs, recovery on the selection split] at each point of the attack's trajectory.

    The reference's own start and end are recovery 0 and 1, as for the cost to recover. Empty where it did not rise.
    """
    return _normalised(record.trajectory, record.reference_trajectory)


def reference_path(record: Record) -> list[Pair]:
    """The same of the reference: from 0 to 1."""
    return _normalised(record.reference_trajectory, record.reference_trajectory)


def _normalised(points: Sequence[Point], reference: Sequence[Point]) -> list[Pair]:
    if not points or not reference or reference[-1].score <= reference[0].score:
        return []
    start, rise = reference[0].score, reference[-1].score - reference[0].score
    return [[short(point.flops), short((point.score - start) / rise)] for point in points]


def search_curves(record: Record) -> dict[str, Any] | None:
    """By side, a list of [trial, its score, best so far, learning rate] on the selection split; None: no search."""
    if record.search is None:
        return None
    sides = {"attacked": record.search.attacked, "reference": record.search.reference}
    found = {side: _trials(curve) for side, curve in sides.items() if curve is not None and curve.trials}
    return found or None


def _trials(curve: SearchCurve) -> list[Pair]:
    given = curve.attack.get("learning_rate")
    return [[trial.number, short(trial.score), short(trial.best), short(rate(trial.params.get("learning_rate", given)))]
            for trial in curve.trials]  # fmt: skip


def learning_rate(record: Record) -> float | None:
    """The learning rate that the spec gives the attack; None where it has none."""
    attack = record.spec["attack"]
    return short(rate(attack.get("learning_rate"))) if isinstance(attack, dict) else None


def rate(value: Any) -> float | None:
    """A learning rate that can be drawn on a logarithmic axis."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0 else None
