"""No defense: the control of every comparison."""

from __future__ import annotations

from typing import ClassVar

from harness.kinds import KINDS, Kind
from harness.plugins import Defense, LockContext, Locked, Released
from harness.settings import Settings


class NoDefenseSettings(Settings):
    """There is nothing to set."""


class NoDefense(Defense):
    """No lock: the base itself, as the control."""

    kinds: ClassVar[tuple[Kind, ...]] = KINDS
    Settings: ClassVar[type[Settings]] = NoDefenseSettings

    def lock(self, base: Released, context: LockContext) -> Locked:
        """The base, unchanged."""
        return Locked(model=base.model)
