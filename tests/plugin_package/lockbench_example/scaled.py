"""A lock that locks nothing: it scales the head and unscales the final norm, so the function stays."""

from __future__ import annotations

from pydantic import Field

from harness.plugins import Defense, LockContext, Locked, Released, Settings


class ScaledSettings(Settings):
    """Knobs of the example."""

    factor: float = Field(2.0, gt=0)
    """What the final norm is multiplied by and the head divided by."""


class ScaledLock(Defense):
    """Scales the final norm up and the head down (an example, no protection)."""

    Settings = ScaledSettings

    def lock(self, base: Released, context: LockContext) -> Locked:
        """Scale in place; needs a Llama with an untied head."""
        base.model.model.norm.weight.data.mul_(self.settings.factor)
        base.model.lm_head.weight.data.div_(self.settings.factor)
        return Locked(model=base.model)
