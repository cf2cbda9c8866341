"""What a search may vary: one distribution a setting. Plain data, so that a plug-in declares its space without Optuna.

Every distribution can be widened to include a value: the settings as given are always tried, whatever the range.
"""

from __future__ import annotations

import math
import typing
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from harness.errors import UsageError
from harness.settings import Settings
from harness.train_settings import TrainSettings

Value = bool | int | float | str
_INSIDE = 0.4
"""Where in a range a value is tried against the setting's own type: between the ends, and not a round number."""


class _Range(Settings):
    """Numbers between two ends, which belong to it."""

    low: float
    """Least value."""
    high: float
    """Largest value."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low={self.low} is above high={self.high}")
        return self

    def including(self, value: Any) -> Self:
        """Widened, where it must be, to hold `value`.

        Raises:
            UsageError: it is no number, or none that this distribution can hold.
        """
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UsageError(f"search.space: {value!r} is not a number, so its setting cannot be searched in a range")
        ends = {"low": min(self.low, value), "high": max(self.high, value)}
        return type(self).parse({**self.model_dump(), **ends}, "search.space")

    def examples(self) -> tuple[Value, ...]:
        """The ends and a value between: what the setting must accept."""
        return self.low, self.low + _INSIDE * (self.high - self.low), self.high


class Uniform(_Range):
    """A real number, uniform between the ends."""

    kind: Literal["uniform"] = "uniform"
    """Which distribution."""


class LogUniform(_Range):
    """A positive number whose logarithm is uniform between the ends'."""

    kind: Literal["log_uniform"] = "log_uniform"
    """Which distribution."""
    low: float = Field(gt=0)
    """Least value."""


class Integers(_Range):
    """A whole number, uniform between the ends."""

    kind: Literal["integers"] = "integers"
    """Which distribution."""
    low: int
    """Least value."""
    high: int
    """Largest value."""

    def examples(self) -> tuple[Value, ...]:
        """The ends."""
        return self.low, self.high


class Choice(Settings):
    """One of a few values."""

    kind: Literal["choice"] = "choice"
    """Which distribution."""
    values: tuple[Value, ...] = Field(min_length=1)
    """The values."""

    def including(self, value: Any) -> Choice:
        """With `value` as a further one, where it is not one yet."""
        return self if value in self.values else Choice.parse({"values": (*self.values, value)}, "search.space")

    def examples(self) -> tuple[Value, ...]:
        """All of them: what the setting must accept."""
        return self.values


Distribution = Annotated[Uniform | LogUniform | Integers | Choice, Field(discriminator="kind")]
Space = dict[str, Distribution]

LEARNING_RATES = LogUniform(low=1e-9, high=1.0)
"""Nine decades, so that no edge of it flatters a lock: SGD wants the upper ones, and a lock that inflates gradients by
1e4 falls to a rate of 2e-7 (docs/reproductions.md, the relearning grid)."""
OPTIMIZERS = ("adamw_torch", "muon", "adafactor", "sgd")
"""One of each family; tried where an attack takes any optimizer."""


def training_space(settings: TrainSettings) -> Space:
    """What any training run may vary, around the settings as given.

    `max_steps` as given is the most: a search must not train longer than the attack it stands for.
    """
    batch, steps = settings.per_device_train_batch_size, settings.max_steps
    space: Space = {
        "learning_rate": LEARNING_RATES,
        "warmup_ratio": Uniform(low=0.0, high=0.3),
        "lr_scheduler_type": Choice(values=("linear", "cosine", "constant_with_warmup")),
        "per_device_train_batch_size": Choice(values=tuple(sorted({max(1, batch // 2), batch, 2 * batch}))),
        "max_steps": Choice(values=tuple(sorted({math.ceil(steps / 2), steps}))),
    }
    optimizers = _allowed(settings, "optim", OPTIMIZERS)
    return space | ({"optim": Choice(values=optimizers)} if len(optimizers) > 1 else {})


def _allowed(settings: Settings, name: str, usual: tuple[str, ...]) -> tuple[str, ...]:
    """The values of a setting that is one of a few by its type; else `usual`."""
    annotation = type(settings).model_fields[name].annotation
    return typing.get_args(annotation) if typing.get_origin(annotation) is Literal else usual
