"""`undo_until_flat`: take the lock out, then fine-tune for longer and longer.

A reference that trains until its curve is flat is a fair measure only of an attack that may do so too: beside
`until_flat`, an undo that stops after its default steps makes a lock look strong that it has taken out altogether. What
undoes the lock at hand is read off the suite (`undo` of `attacks/suites.py`), or off the model where the release names
a lock that the suite does not know. On a model with no lock this is `until_flat`, so the reference is fair.
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

        undo = undo_of(released, context.seed)
        return longer_and_longer(undo, self.settings, released, context, [self.settings.learning_rate])


def undo_of(released: Released, seed: int) -> str:
    """What undoes the lock, by the standard suite; `undo_all` where there are several; `full` where there is none."""
    from attacks.common import locks_of
    from attacks.suites import STANDARD

    locks = locks_of(released)
    undone = [attack for lock in locks for attack in STANDARD.undo.get(lock, ())[:1]]
    if undone:
        return undone[0] if len(undone) == 1 else "undo_all"
    return "full" if locks == ["none"] else _by_structure(released, seed)


def _by_structure(released: Released, seed: int) -> str:
    """For a lock of another name: what finds something of its own in the model. One look at 16 tokens is on no bill.

    `undo_specdef` looks for deformed spectra, and is full fine-tuning where it finds none.
    """
    from attacks.linear_pairs import find_chains
    from attacks.undo_dlr import dlr_nets
    from attacks.undo_specdef_reparam import probe_ids

    model = released.model.eval()
    if dlr_nets(model):
        return "redistill"
    chained = released.tokenizer is not None and find_chains(model, probe_ids(model, seed))
    return "undo_specdef_reparam" if chained else "undo_specdef"
