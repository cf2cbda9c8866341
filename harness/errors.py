"""What can go wrong, in the words the record and the exit status use."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from harness.bill import Bill


class UsageError(ValueError):
    """The user asked for something impossible: one clear line, exit status 2, nothing expensive has run."""


class Outcome(Exception):
    """A cell ended in a way that is a result, not a crash; `status` is what the record says."""

    status: ClassVar[str] = "failed"
    bills: Mapping[str, Bill] = MappingProxyType({})
    """What had been spent by stage when it ended; set by whoever holds the meter."""
    role: str | None = None
    """`attacked` or `reference`: whose run ended."""


class OutOfMemory(Outcome):
    """The machine, or `--budget memory=`, ran out (design.md, invariant 8)."""

    status = "out_of_memory"


class OverBudget(Outcome):
    """The budget ended before the attack had produced a model."""

    status = "over_budget"


class Unavailable(Outcome):
    """This machine lacks something that the cell needs; the reason names it."""

    status = "unavailable"


def without_frames(error: Outcome) -> Outcome:
    """The outcome without its traceback and causes, whose frames keep alive whatever was at work (a model, say)."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
