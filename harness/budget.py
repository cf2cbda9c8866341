"""What an attacker may spend. The training loop and the meter enforce it; nothing here is a mere note."""

from __future__ import annotations

import math
import re

from pydantic import Field

from harness.errors import UsageError
from harness.settings import Settings

MEMORY_UNITS = {"": 1, "b": 1, "k": 1e3, "kb": 1e3, "kib": 2**10, "m": 1e6, "mb": 1e6, "mib": 2**20,
           "g": 1e9, "gb": 1e9, "gib": 2**30, "t": 1e12, "tb": 1e12, "tib": 2**40}  # fmt: skip
_TIME = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}
_COUNT = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "p": 1e15, "e": 1e18}


class Budget(Settings):
    """Limits on everything the attacker does (undo, search and attack together); null is unlimited."""

    steps: int | None = Field(None, gt=0)
    """Optimizer steps."""
    tokens: int | None = Field(None, gt=0)
    """Training tokens, forward passes without a backward included."""
    flops: float | None = Field(None, gt=0)
    """Counted FLOPs, forward and backward."""
    memory: int | None = Field(None, gt=0)
    """Bytes on the device: accounted (weights, gradients, optimizer, activations) on CPU, a real cap on CUDA."""
    seconds: float | None = Field(None, gt=0)
    """Wall-clock seconds."""
    trials: int | None = Field(None, gt=0)
    """Search trials; given without `search.trials`, as many are made."""
    examples: int | None = Field(None, gt=0)
    """Distinct training examples (task documents) the attacker may see."""

    @classmethod
    def from_text(cls, text: str) -> Budget:
        """Parse `steps=200,memory=8GiB,seconds=10min,flops=3e12`; an empty text is an unlimited budget.

        Raises:
            UsageError: an unknown limit, a repeated one, or a value that is not a positive number with a known unit.
        """
        return cls.parse_pairs(text, "budget", "budget", _number)

    def part(self, parts: int) -> Budget:
        """One of `parts` equal parts of what adds up (steps, tokens, FLOPs, seconds); memory and examples are whole.

        Raises:
            UsageError: a part has not one step or token.
        """
        for name in ("steps", "tokens"):
            limit = getattr(self, name)
            if limit is not None and limit < parts:
                raise UsageError(f"budget.{name}={limit} has not one for each of {parts - 1} trials and the attack")
        cut: dict[str, float | None] = {
            "steps": self.steps and self.steps // parts, "tokens": self.tokens and self.tokens // parts,
            "flops": self.flops and self.flops / parts, "seconds": self.seconds and self.seconds / parts,
        }  # fmt: skip
        return self.model_copy(update={**cut, "trials": None})


def _number(key: str, text: str) -> float:
    units = MEMORY_UNITS if key == "memory" else _TIME if key == "seconds" else _COUNT
    match = re.fullmatch(r"([+-]?[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]*)", text.strip())
    if not match or match[2].lower() not in units:
        allowed = ", ".join(unit for unit in units if unit)
        raise UsageError(f"budget.{key}={text!r}: expected a positive number, with an optional unit of {allowed}")
    value = float(match[1]) * units[match[2].lower()]
    if key in ("flops", "seconds"):
        return value
    if key != "memory" and math.isfinite(value) and value != int(value):
        raise UsageError(f"budget.{key}={text!r}: expected a whole number")
    return int(value) if math.isfinite(value) else value
