"""How rows show in the formats for people: the columns of the two tables, and the notes under them."""

from __future__ import annotations

from typing import Any

from harness.records.sections import CostToRecover
from leaderboards import units
from leaderboards.formats import Column


def _cost(row: Any, level: str) -> str:
    cost = row.cost_to_recover.get(level, CostToRecover())
    if cost.censored:
        return "> budget"
    return units.DASH if cost.flops is None else f"{units.count(cost.flops)}, {units.ratio(cost.ratio)}"


def _standard(row: Any) -> str:
    standing = row.standard
    if not standing.n_attacks:
        return units.DASH
    run = f" ({standing.n_suite - len(standing.missing)} of {standing.n_suite})" if standing.missing else ""
    return units.with_ends(standing.robustness) + run


def _flops_ratio(row: Any) -> str:
    return units.ratio(units.divide(row.attack_flops, row.reference_flops))


def _state(row: Any) -> str:
    return "collapsed" if row.collapsed and row.status == "complete" else row.status.replace("_", " ")


def _rank(row: Any) -> str:
    return units.DASH if row.rank is None else str(row.rank)


CONTEXT = ("model", "task", "budget")
"""Columns that go into the heading when they say the same in every row."""
BOARD_COLUMNS: tuple[Column, ...] = (
    ("rank", _rank),
    ("model", lambda row: row.model),
    ("defense", lambda row: row.defense),
    ("task", lambda row: row.task),
    ("budget", lambda row: row.budget),
    ("robustness", lambda row: units.with_ends(row.robustness)),
    ("standard", _standard),
    ("worst attack", lambda row: row.worst_attack or units.DASH),
    ("utility kept", lambda row: units.number(row.utility_retention)),
    ("perplexity", lambda row: units.ratio(row.perplexity_ratio)),
    ("KL", lambda row: units.number(row.kl)),
    ("lock FLOPs", lambda row: units.count(row.lock_flops)),
    ("kept bytes", lambda row: units.ratio(row.kept_bytes_ratio)),
    ("recover 0.9 at", lambda row: _cost(row, "0.9")),
    ("attacks", lambda row: str(row.n_attacks)),
    ("out of memory", lambda row: ", ".join(row.out_of_memory) or units.DASH),
)
CELL_COLUMNS: tuple[Column, ...] = (
    ("cell", lambda row: row.id[:8]),
    ("model", lambda row: row.model),
    ("defense", lambda row: row.defense),
    ("attack", lambda row: row.attack),
    ("task", lambda row: row.task),
    ("seed", lambda row: str(row.seed)),
    ("budget", lambda row: row.budget),
    ("outcome", _state),
    ("recovery", lambda row: units.with_ends(row.recovery)),
    ("FLOPs", lambda row: units.count(row.attack_flops)),
    ("over reference", _flops_ratio),
    ("kept", lambda row: units.size(row.kept_bytes)),
    ("reference kept", lambda row: units.size(row.reference_kept_bytes)),
    ("flags", lambda row: ", ".join(row.flags)),
)
