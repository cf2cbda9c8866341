"""The ranking: a row a (model, task, budget, defense), from all of its cells."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Any

from pydantic import Field, ValidationError

from harness.cache import digest_of
from harness.numbers.labels import label_of, labels
from harness.numbers.robustness import AttackOutcome, Cell, Excluded, Known, Robustness, robustness
from harness.numbers.scoring import THRESHOLDS
from harness.progress import Said, counted
from harness.records.record import Record
from harness.records.sections import CostToRecover, Interval
from harness.settings import Settings
from leaderboards.groups import Group, group_of
from leaderboards.index import Index
from leaderboards.soundness import micro_batch, warnings
from leaderboards.standing import CEILINGS, Standing, places, standard, standing, suite_attacks, within
from leaderboards.units import budget_label


class BoardRow(Settings):
    """One lock under one budget."""

    key: str
    """Short hash of what the row is of: (model, own task of a classifier, task, budget, defense, corpus)."""
    rank: int | None = None
    """1 + the number of locks of the same model, task and budget that are clearly better, and not before one with a
    better lower end; null is unranked."""
    model: str
    """Base."""
    defense: str
    """Lock, with the settings that tell it from others of the same name."""
    task: str
    """What the attackers wanted."""
    budget: str
    """What they could spend."""
    robustness: Interval
    """1 - the largest recovery; 1, the lock held; 0, it did nothing."""
    worst_attack: str | None = None
    """The attack that recovered most."""
    standard: Standing
    """The same under the attacks of the standard suite alone; `robustness` is over all that are known."""
    by_knowledge: dict[str, Standing] = Field(default_factory=dict)
    """The same under attackers who know at most the recipe, or the lock's family; `robustness` is up to its code."""
    bounded: Interval
    """Robustness when a collapsed model counts as a failed attack."""
    best_reference: str | None = None
    """The attack whose reference is in the denominator."""
    utility_retention: float | None = None
    """Chance-corrected utility of locked over base; mean over the cells' locks."""
    perplexity_ratio: float | None = None
    """Perplexity of locked over base."""
    kl: float | None = None
    """KL(base, locked) a token, nats."""
    top1_agreement: float | None = None
    """Share of tokens with the same prediction."""
    lock_flops: float | None = None
    """FLOPs to make the lock."""
    lock_seconds: float | None = None
    """Seconds to make the lock."""
    kept_bytes_ratio: float | None = None
    """Largest bytes kept for backward of an attack over those of its own reference, in micro-batches of one size."""
    cost_to_recover: dict[str, CostToRecover] = Field(default_factory=dict)
    """By threshold, the cheapest over the ranked attacks."""
    n_attacks: int = 0
    """Attacks that count."""
    attacks: list[AttackOutcome] = Field(default_factory=list)
    """What each of them reached, strongest first."""
    out_of_memory: list[str] = Field(default_factory=list)
    """Attacks that ran out of memory."""
    collapsed: list[str] = Field(default_factory=list)
    """Attacks whose model collapsed."""
    excluded: list[Excluded] = Field(default_factory=list)
    """Cells that do not count, and why."""
    warnings: list[str] = Field(default_factory=list)
    """Why the row may flatter the lock: attacks that were weaker than they should have been."""


def rank(cells: Sequence[Cell], index: Index | None = None, progress: Said | None = None) -> list[BoardRow]:
    """The rows of `leaderboards.rows.board_table`.

    Args:
        cells: of one folder.
        index: rows that were computed before of the same files, by the same code; new ones are added.
        progress: hears of it.
    """
    groups: dict[Group, list[Cell]] = defaultdict(list)
    for cell in cells:
        groups[group_of(cell.record.spec)].append(cell)
    return ranked({key: row_of(group, key, index)
                   for key, group in counted(sorted(groups.items()), len(groups), "ranking", progress)})  # fmt: skip


def ranked(rows: Mapping[Group, BoardRow]) -> list[BoardRow]:
    """The rows of all groups with the names and ranks that they have beside each other.

    Args:
        rows: from `row_of`.
    """
    chosen = {key: json.loads(key[-2]) for key in rows}
    defenses = labels(list(chosen.values()))
    fields: dict[Group, list[BoardRow]] = defaultdict(list)
    for key in sorted(rows):
        row = rows[key].model_copy(update={"defense": label_of(defenses, chosen[key])})
        fields[key[:-2]].append(row)
    return [row for field in fields.values() for row in _ranked(field)]


def _ranked(rows: list[BoardRow]) -> list[BoardRow]:
    """Best lower bound first, with ranks by all attacks and by every part of them."""
    rows = sorted(rows, key=lambda row: (-_low(row), row.defense))
    best = places([row.robustness for row in rows])
    usual = _placed([row.standard for row in rows])
    known = {ceiling: _placed([row.by_knowledge[ceiling] for row in rows]) for ceiling in CEILINGS}
    return [row.model_copy(update={"rank": best[index], "standard": usual[index],
                                   "by_knowledge": {ceiling: known[ceiling][index] for ceiling in known}})
            for index, row in enumerate(rows)]  # fmt: skip


def _placed(standings: Sequence[Standing]) -> list[Standing]:
    ranks = places([standing.robustness for standing in standings])
    return [one.model_copy(update={"rank": rank}) for one, rank in zip(standings, ranks, strict=True)]


def _low(row: BoardRow) -> float:
    return -math.inf if row.robustness.low is None else row.robustness.low


def row_of(cells: Sequence[Cell], group: Group, index: Index | None = None) -> BoardRow:
    """The row of a group, as it is whatever other groups there are: without rank, and its lock under its bare name.

    It follows from the cells and the standard suite, and is taken out of the index where it is there.
    """
    key, files = sha256("\n".join(group).encode()).hexdigest()[:12], [cell.digest for cell in cells]
    if index is None or None in files:
        return _row(cells, key)
    place = digest_of(["row", files, key, suite_attacks(cells[0].record.name("task"))])
    with suppress(ValidationError):
        if (found := index.get(place)) is not None:
            return BoardRow.model_validate_json(found)
    row = _row(cells, key)
    index.put(place, row.model_dump_json().encode())
    return row


def _row(cells: Sequence[Cell], key: str) -> BoardRow:
    records = [cell.record for cell in cells]
    known: Known = {}
    result = robustness(cells, known)
    ranked = {cell_id for outcome in result.attacks for cell_id in outcome.ids}
    counted = [record for record in records if record.id in ranked]
    first = records[0]
    views = within(cells, result, known)
    found = warnings(result, records)
    for ceiling, (view, part) in views.items():
        more = warnings(view, [cell.record for cell in part])
        found += [f"among those who know at most the {ceiling}, {text}" for text in more if text not in found]
    return BoardRow(
        key=key, model=first.name("model"), defense=first.name("defense"), task=first.name("task"),
        budget=budget_label(first.spec["budget"]),
        robustness=result.robustness, worst_attack=result.worst_attack, bounded=result.bounded,
        best_reference=result.best_reference, attacks=result.attacks,
        standard=standard(cells, result, suite_attacks(first.name("task")), known),
        by_knowledge={ceiling: standing(view) for ceiling, (view, _) in views.items()},
        utility_retention=_mean(r.utility.locked.retention for r in records if r.utility.locked),
        perplexity_ratio=_mean(map(perplexity_ratio, records)),
        kl=_mean(r.fidelity.kl for r in records), top1_agreement=_mean(r.fidelity.top1_agreement for r in records),
        lock_flops=_mean(r.cost.lock.flops for r in records if r.cost.lock),
        lock_seconds=_mean(r.cost.lock.seconds for r in records if r.cost.lock),
        kept_bytes_ratio=max(filter(None, map(kept_ratio, counted)), default=None),
        cost_to_recover={f"{level:g}": _cheapest(counted, f"{level:g}") for level in THRESHOLDS},
        **_named(result), excluded=result.excluded, warnings=found,
    )  # fmt: skip


def _named(result: Robustness) -> dict[str, Any]:
    return {"n_attacks": len(result.attacks),
            "out_of_memory": [outcome.label for outcome in result.attacks if outcome.out_of_memory],
            "collapsed": [outcome.label for outcome in result.attacks if outcome.collapsed]}  # fmt: skip


def perplexity_ratio(record: Record) -> float | None:
    """Perplexity of locked over base; None when either was not measured."""
    base, locked = record.utility.base, record.utility.locked
    if base is None or locked is None or not base.perplexity.value or locked.perplexity.value is None:
        return None
    return _finite(locked.perplexity.value / base.perplexity.value)


def kept_ratio(record: Record) -> float | None:
    """Bytes kept for backward a sequence of the micro-batch, attack over reference; None when either did not run.

    A search may choose another batch on the locked model than on the base: that is no memory of the lock's.
    """
    attack, reference = record.cost.attack, record.cost.reference
    if attack is None or reference is None or not reference.kept_for_backward_bytes:
        return None
    larger = micro_batch(record, "attacked") / micro_batch(record, "reference")
    return _finite(attack.kept_for_backward_bytes / reference.kept_for_backward_bytes / larger)


def _cheapest(records: Iterable[Record], level: str) -> CostToRecover:
    """The least cost over attacks; censored if some attack was tried and none got there."""
    known = [record.cost_to_recover[level] for record in records if level in record.cost_to_recover]
    reached = [cost for cost in known if cost.flops is not None]
    if reached:
        return min(reached, key=lambda cost: cost.flops if cost.flops is not None else math.inf)
    censored = any(cost.censored for cost in known)
    reason = "not reached by any attack within the budget" if censored else "no attack has a trajectory"
    return CostToRecover(censored=censored, reason=reason)


def _finite(value: float) -> float | None:
    """A ratio of what a stranger's record says may overflow."""
    return value if math.isfinite(value) else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
