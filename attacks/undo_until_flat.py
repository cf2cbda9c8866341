"""`undo_until_flat`: take the lock out, then fine-tune for longer and longer.

A reference that trains until its curve is flat is a fair measure only of an attack that may do so too: beside
`until_flat`, an undo that stops after its default steps makes a lock look strong that it has taken out altogether. What
undoes the lock at hand is read off the suite (`undo` of `attacks/suites.py`); on a model with no lock, or one that
nothing there undoes, this is `until_flat`, so the reference is fair.
"""

from __future__ import annotations

from typing import Any, ClassVar

from attacks.full import UndoneSettings
from attacks.until_flat import AS_GIVEN, UntilFlatSettings
from harness.kinds import KINDS, Kind
from harness.plugins import Attack, AttackContext, Attacked, Knowledge, Released


class UndoUntilFlatSettings(UndoneSettings, UntilFlatSettings):
    """`until_flat`'s settings at the rate of undone models; what the undo has beside them is at its defaults."""


class UndoUntilFlat(Attack):
    """Undo the lock that the release names, then fine-tune for longer and longer."""

    kinds: ClassVar[tuple[Kind, ...]] = KINDS
    knowledge = Knowledge.CODE
    as_given = AS_GIVEN
    Settings = UndoUntilFlatSettings
    settings: UndoUntilFlatSettings

    def tried(self) -> dict[str, Any]:
        """See `harness.plugins.Attack`: trials make the first run only."""
        return {"name": "undo_until_flat", **self.settings.model_dump(), "doublings": 0}

    def attack(self, released: Released, context: AttackContext) -> Attacked:
        """See `harness.plugins.Attack`."""
        from attacks.until_flat import longer_and_longer

        return longer_and_longer(undo_of(released), self.settings, released, context, [self.settings.learning_rate])


def undo_of(released: Released) -> str:
    """What undoes the lock, by the standard suite; `undo_all` where there are several; `full` where nothing does."""
    from attacks.common import locks_of
    from attacks.suites import STANDARD

    undone = [attack for lock in locks_of(released) for attack in STANDARD.undo.get(lock, ())[:1]]
    return "full" if not undone else undone[0] if len(undone) == 1 else "undo_all"
