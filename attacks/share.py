"""How much of an attacker's budget the preparation of an attack may use, so that the attack itself still happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.meters.meter import Meter

SHARE = 0.5
"""Part of what was left of the budget when the preparation began."""
UNLIMITED = 2**31


class Share:
    """Plans within half of what a budget has left; without limits everything is affordable."""

    def __init__(self, meter: Meter) -> None:
        self._meter, self._start = meter, meter.remaining()

    def affordable(self, flops: float, *, fraction: float = 1.0, reserve: int = 0, reserve_flops: float = 0) -> int:
        """Tokens that may be processed at `flops` FLOPs each.

        Args:
            flops: FLOPs a token.
            fraction: of the share, for one part of the preparation.
            reserve: tokens to leave for later parts.
            reserve_flops: FLOPs to leave for later parts.
        """
        tokens = self._left("tokens") - reserve
        operations = self._left("flops") - reserve_flops
        return max(0, int(min(fraction * tokens, fraction * operations / flops, UNLIMITED)))

    def steps(self) -> int:
        """Optimizer steps that may be done."""
        return int(min(self._left("steps"), UNLIMITED))

    def late(self) -> bool:
        """Whether the share of the seconds is used up."""
        left, start = self._meter.seconds_left(), self._start.seconds
        return left is not None and start is not None and left < (1 - SHARE) * start

    def _left(self, name: str) -> float:
        """What the share has left of a limit."""
        start, now = getattr(self._start, name), getattr(self._meter.remaining(), name)
        return float("inf") if start is None else float(now - (1 - SHARE) * start)
