"""How the owner makes the classifier of a scenario, before any lock. Imports no torch."""

from __future__ import annotations

from pydantic import Field

from harness.train_settings import TrainSettings


class OwnerTraining(TrainSettings):
    """Training of the classifier on its own task, and forgetting where the task says what is to be forgotten."""

    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate."""
    max_steps: int = Field(300, gt=0)
    """Optimizer steps."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Of the weights and the order; apart from the cell's seed, so that cells share the classifier."""
    eval_points: int = Field(0, ge=0)
    """Nobody asks for a trajectory of the owner's."""
    unlearn_steps: int = Field(150, gt=0)
    """Steps on the forgotten classes under other labels, where there are any."""
    unlearn_learning_rate: float = Field(1e-3, gt=0)
    """Their peak learning rate."""
