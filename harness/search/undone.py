"""What an attack made of a locked model before it trained, kept between the trials of one search.

All trials of a search have one seed and one part of the budget, and most of them differ in settings that undoing a lock
never looks at. What was undone under equal settings is equal, so it is made once. Every trial still pays for it: an
undoing that is taken from here puts on the bill what it cost when it was made.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.bill import Bill

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.plugins import AttackContext
    from harness.settings import Settings

STAGE = "undo"
Result = tuple["PreTrainedModel", dict[str, Any]]
"""The undone model and JSON for the report."""
Undoing = Callable[[Any], Result]
"""Settings to that; it must not look at settings by any other way."""


class Noted:
    """Settings that note what was asked of them; a method, which may look at anything, counts as all of them."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self.read = settings, dict[str, Any]()

    def __getattr__(self, name: str) -> Any:
        fields = type(self._settings).model_fields
        self.read |= {field: getattr(self._settings, field) for field in ([name] if name in fields else fields)}
        return getattr(self._settings, name)


@dataclass(frozen=True, kw_only=True)
class _Kept:
    read: dict[str, Any]
    model: PreTrainedModel
    """On the host."""
    report: dict[str, Any]
    bill: Bill


class Undone:
    """The last thing that was undone, and under which settings.

    Args:
        paid_again: whether who takes it from here pays for it: trials of a search do, runs of one attack do not.
    """

    def __init__(self, *, paid_again: bool = True) -> None:
        self._kept: _Kept | None = None
        self._paid_again = paid_again

    def get(self, undoing: Undoing, settings: Settings, context: AttackContext) -> Result:
        """`undoing(settings)` on the bill `undo`, or a copy of what it gave when all that it looked at was the same."""
        kept = self._kept
        if kept is None or any(getattr(settings, name) != value for name, value in kept.read.items()):
            return self._make(undoing, settings, context)
        if self._paid_again:
            with context.meter.stage(STAGE):
                context.meter.charge(kept.bill)
        return copy.deepcopy(kept.model).to(device=context.device), copy.deepcopy(kept.report)

    def _make(self, undoing: Undoing, settings: Settings, context: AttackContext) -> Result:
        if self._paid_again and STAGE in context.meter.bills:
            raise RuntimeError("an attack undoes a lock once: what it paid for it could not be told apart")
        self._kept, noted = None, Noted(settings)
        model, report = undoing(noted)
        if (bill := context.meter.bills.get(STAGE)) is None:  # there was nothing to undo
            return model, report
        kept = copy.deepcopy(model.to(device="cpu"))
        self._kept = _Kept(read=noted.read, model=kept, report=copy.deepcopy(report), bill=bill)
        return model.to(device=context.device), report
