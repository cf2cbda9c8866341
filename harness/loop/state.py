"""Where a training run stands: what its checkpoint keeps beside tensors."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.training import TrajectoryPoint


@dataclass(kw_only=True)
class State:
    """What a checkpoint keeps beside tensors."""

    steps: int
    """Planned steps."""
    limit: str
    """What limits them."""
    step: int = 0
    """Steps done."""
    losses: list[float] = field(default_factory=list)
    trajectory: list[TrajectoryPoint] = field(default_factory=list)
    skipped: int = 0
    """Steps whose update was skipped because a gradient was not finite."""
