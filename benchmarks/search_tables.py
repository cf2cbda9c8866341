"""What searches found, from records of cells that searched: the generated part beside `standard` in the documents."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from harness.records.record import Record
from harness.search.curve import SearchCurve
from harness.search.rates import RATE

Cells = dict[str, dict[str, str]]


def found(records: Sequence[Record]) -> list[dict[str, str]]:
    """A row an attack: what its search chose and brought on each locked model and, first, on the base of each.

    Every lock has the same base but one that pretrains, whose control is the base of its cells.
    """
    rows: Cells = {}
    for record in sorted(records, key=lambda record: (record.model.control is not None, record.name("defense"))):
        if record.search is None or record.search.attacked is None:
            continue
        row = rows.setdefault(record.name("attack"), {})
        base = record.model.control or record.model.name
        if record.search.reference is not None:
            row.setdefault(base, told(record.search.reference, record))
        row[record.name("defense")] = told(record.search.attacked, record)
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    return [{"attack": attack, **{column: row.get(column, "-") for column in columns}}
            for attack, row in sorted(rows.items())]  # fmt: skip


def told(curve: SearchCurve, record: Record) -> str:
    """The chosen rate over the given one, what else differs and by more than that factor (rates move together), and how
    far the best trial beat the first."""
    if curve.chosen is None:
        return "none complete"
    given: Any = record.spec["attack"]
    params = curve.trials[curve.chosen].params
    rate = float(params[RATE]) / float(given[RATE])  # type: ignore[arg-type]
    others = [f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}" for key, value in params.items()
              if value != given[key] and not (key.endswith(RATE) and math.isclose(value, rate * given[key]))]  # type: ignore[arg-type]
    first = curve.trials[0].score
    best = curve.trials[curve.chosen].score
    rose = "" if first is None or best is None else f" ({best - first:+.2f})"
    return ", ".join([f"{rate:.3g} x{rose}", *others])


def outcomes(records: Sequence[Record]) -> Mapping[str, int]:
    """How many trials were complete, pruned and failed."""
    counts: dict[str, int] = {}
    for searches in (record.search for record in records):
        for curve in (searches.attacked, searches.reference) if searches else ():
            for trial in curve.trials if curve else ():
                counts[trial.outcome] = counts.get(trial.outcome, 0) + 1
    return counts
