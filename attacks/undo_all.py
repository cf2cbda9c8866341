"""`undo_all`: undo every lock of a model that has several, the last one first, then fine-tune.

What undoes one lock leaves the others in, and a lock that is still there is what the attack then meets. Each lock that
the release names is taken out as the attack that undoes it does, with that attack's defaults; all of it is on the bill
`undo`. Of a lock that only chose what to pretrain (PMP) there is nothing to take out: fine-tuning everything is what it
falls to. On a model with no lock this is plain full fine-tuning, so the reference is fair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from attacks.full import UndoneSettings
from harness.kinds import KINDS, Kind
from harness.plugins import Attack, AttackContext, Attacked, Knowledge, Released

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel

    Step = Callable[[PreTrainedModel, Released, AttackContext], dict[str, Any]]
    """Takes one lock out of a model in place; returns JSON for the report."""


class UndoAllSettings(UndoneSettings):
    """`full`'s settings for the fine-tuning, at the rate of undone models; those of the undos are at their defaults."""


class UndoAll(Attack):
    """Take every lock out that the release names, the last one first, then fine-tune everything."""

    kinds: ClassVar[tuple[Kind, ...]] = KINDS
    knowledge = Knowledge.CODE
    Settings = UndoAllSettings
    settings: UndoAllSettings

    def attack(self, released: Released, context: AttackContext) -> Attacked:
        """See `harness.plugins.Attack`."""
        from attacks.common import locks_of, undo_then_finetune

        def undo(model: PreTrainedModel, tokenizer: Any, settings: Any, where: AttackContext) -> dict[str, Any]:
            return {lock: STEPS[lock](model, released, where) for lock in reversed(locks_of(released)) if lock in STEPS}

        return undo_then_finetune(released, context, self.settings, undo)


def _dlr(model: PreTrainedModel, released: Released, context: AttackContext) -> dict[str, Any]:
    from attacks.redistill import RedistillSettings
    from attacks.undo_dlr import undo

    return undo(model, released.tokenizer, RedistillSettings(), context)


def _specdef(model: PreTrainedModel, released: Released, context: AttackContext) -> dict[str, Any]:
    from attacks.spectral_repair import inflated_values, undo
    from attacks.undo_specdef import UndoSpecDefSettings

    return undo(model, released.tokenizer, UndoSpecDefSettings(), context, known=inflated_values(released))


def _specdef_reparam(model: PreTrainedModel, released: Released, context: AttackContext) -> dict[str, Any]:
    from attacks.linear_pairs import merge
    from attacks.undo_specdef_reparam import chains_of

    with context.meter.stage("undo"):
        chains = chains_of(model.eval(), context)
        with context.meter.measure():
            return {"merged": merge(model, chains)}


STEPS: dict[str, Step] = {"dlr": _dlr, "specdef": _specdef, "specdef_reparam": _specdef_reparam}
"""By lock."""
