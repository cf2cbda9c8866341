"""A lock's robustness under a part of its attacks: the standard suite, or attackers who know no more than so much.

The ranking itself is over every attack in the records ("best known"). Two records of one lock by different groups are
comparable only under the same attacks, which the standard suite fixes; so both stand side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from pydantic import Field

from harness.numbers.robustness import Cell, Known, Robustness, robustness
from harness.plugins import Knowledge
from harness.records.sections import Interval
from harness.settings import Settings

SUITE = "standard"
CEILINGS = ("recipe", "family")
"""Limits to what an attacker knows, below all that is ranked (`code`)."""
_ORDER = [knowledge.value for knowledge in Knowledge]


class Standing(Settings):
    """What a part of the attacks says of a lock."""

    rank: int | None = None
    """Rank under these attacks alone; null is unranked."""
    robustness: Interval
    """1 - the largest recovery of these attacks, against the best reference among them."""
    worst_attack: str | None = None
    """The attack that recovered most."""
    n_attacks: int = 0
    """Attacks that count."""
    n_suite: int | None = None
    """Attacks in the suite; null where these attacks are not those of a suite."""
    missing: list[str] = Field(default_factory=list)
    """Attacks of the suite that do not count here because they were not run, or gave no valid outcome."""


@lru_cache(maxsize=256)
def suite_attacks(task: str | None = None) -> tuple[str, ...]:
    """Names of the standard suite's attacks, as installed; none where no such suite is.

    Args:
        task: only attacks for its kind of model; None is all of them.
    """
    from harness import registry
    from harness.suites import fits

    suites = registry.suites()
    attacks = suites.get(SUITE).attacks if SUITE in suites.names() else ()
    return tuple(attack for attack in attacks if task is None or fits(attack, task))


def standard(cells: Sequence[Cell], whole: Robustness, suite: Sequence[str], known: Known) -> Standing:
    """Under the suite's attacks, taken by name whatever their settings.

    Args:
        cells: of one (model, defense, task, budget).
        whole: the ranking of all of them.
        suite: names of attacks.
        known: recoveries that `whole` found.
    """
    names = {cell.record.id: cell.record.name("attack") for cell in cells}
    result = _part(cells, whole, known, [id_ for id_ in names if names[id_] in suite])
    counted = {names[id_] for outcome in result.attacks for id_ in outcome.ids}
    return standing(result, [name for name in suite if name not in counted], len(suite))


def within(cells: Sequence[Cell], whole: Robustness, known: Known) -> dict[str, tuple[Robustness, list[Cell]]]:
    """The ranking by attackers who know at most so much, and their cells, by `CEILINGS`."""
    below = {top: [cell for cell in cells if level(cell.record.provenance.knowledge) <= level(top)] for top in CEILINGS}
    return {top: (_part(cells, whole, known, [cell.record.id for cell in part]), part) for top, part in below.items()}


def level(knowledge: str | None) -> int:
    """Place in the order recipe, family, code, secret; what is not recorded counts as `code`."""
    return _ORDER.index(knowledge if knowledge in _ORDER else Knowledge.CODE)


def places(intervals: Sequence[Interval]) -> list[int | None]:
    """Rank of each, in the order given; None is unranked.

    1 + the number whose whole interval lies above, so that overlapping ones are tied. A wide interval may overlap those
    far above it: it still never ranks before one with a better lower end. Noise ranks a lock lower, not higher.
    """
    known = {index: (i.low, i.high) for index, i in enumerate(intervals) if i.low is not None and i.high is not None}
    found: list[int | None] = [None] * len(intervals)
    rank = 1
    for index in sorted(known, key=lambda index: -known[index][0]):
        rank = max(rank, 1 + sum(low > known[index][1] for low, _ in known.values()))
        found[index] = rank
    return found


def _part(cells: Sequence[Cell], whole: Robustness, known: Known, ids: Sequence[str]) -> Robustness:
    """The ranking of these cells; that of all where the others do not count anyway."""
    counted, kept = {id_ for outcome in whole.attacks for id_ in outcome.ids}, set(ids)
    return whole if counted <= kept else robustness([cell for cell in cells if cell.record.id in kept], known)


def standing(result: Robustness, missing: Sequence[str] = (), n_suite: int | None = None) -> Standing:
    """What is shown of the ranking by a part of the attacks."""
    return Standing(robustness=result.robustness, worst_attack=result.worst_attack, n_attacks=len(result.attacks),
                    n_suite=n_suite, missing=list(missing))  # fmt: skip
