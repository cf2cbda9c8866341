"""Suites: a lock is ranked under a standard ensemble of attacks, and nobody chooses which. Imports no torch.

`--attack standard` stands for every attack of the suite, `--attack standard:quick` for a few. A suite is data that
comes in by an entry point of the group `lockbench.suites`, like any plug-in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from harness.composition import SIGN
from harness.errors import UsageError
from harness.settings import Settings, unknown


class Suite(Settings):
    """Names of attacks, each with its default settings: a suite has no parameters."""

    attacks: tuple[str, ...]
    """All of them, cheapest first; an attack that undoes another lock than the one at hand is plain fine-tuning."""
    quick: tuple[str, ...]
    """The few that a fast check runs against every lock."""
    undo: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """By lock, the attacks that undo it: the fast check of that lock runs them too."""

    def members(self, part: str, defense: str) -> tuple[str, ...]:
        """The attacks of `part` (empty: all, or `quick`) against a lock.

        Raises:
            UsageError: there is no such part.
        """
        if part not in ("", "quick"):
            raise UsageError(unknown(part, ("quick",), "part of a suite"))
        if not part:
            return self.attacks
        undo = (attack for lock in defense.split(SIGN) for attack in self.undo.get(lock, ()))
        return tuple(dict.fromkeys((*self.quick, *undo)))


def expand(raw: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Raw spec values (see `harness.spec.resolve`) whose attack may be a suite, as those of its cells.

    Attacks of the suite that are not for the task's kind of model are left out.

    Settings given for the attack go to every attack of the suite, and each must know them.

    Raises:
        UsageError: there is no such part of the suite.
    """
    from harness import registry
    from harness.spec import Spec

    attack, defense = (_named(raw.get(key, {})) for key in ("attack", "defense"))
    name, colon, part = str(attack.get("name", "")).partition(":")
    if name not in registry.suites().names() or (colon and not part):
        return [dict(raw)]
    members = registry.suites().get(name).members(part, str(defense.get("name", "none")))
    task = _named(raw.get("task", {})).get("name", Spec().task["name"])
    members = tuple(member for member in members if fits(member, task))
    return [{**raw, "attack": {**attack, "name": member}} for member in members]


def fits(attack: str, task: Any) -> bool:
    """Whether the attack is for the task's kind of model; true of names that nobody knows, which others refuse."""
    from harness import registry

    known = task in registry.tasks().names() and attack in registry.attacks().names()
    return not known or registry.tasks().get(task).kind in registry.attacks().get(attack).kinds


def _named(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {"name": value}
