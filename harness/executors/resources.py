"""What a job asks of a cluster. Imports no Ray."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from pydantic import Field

from harness.budget import MEMORY_UNITS
from harness.errors import UsageError
from harness.settings import Settings


class Resources(Settings):
    """Of one job; a job runs on one machine."""

    cpus: float = Field(1.0, gt=0)
    """CPU cores; Ray gives a job's libraries as many threads."""
    gpus: float = Field(0.0, ge=0)
    """GPUs, or a part of one (0.25: four jobs share it; Ray hides the other GPUs, it does not divide the memory)."""
    memory: int | None = Field(None, gt=0)
    """Bytes of main memory that Ray counts for a job; it is not enforced."""

    @classmethod
    def from_text(cls, text: str) -> Resources:
        """Parse `cpus=2,gpus=0.5,memory=8GiB`; an empty text is one core.

        Raises:
            UsageError: an unknown resource, a repeated one, or no positive number.
        """
        return cls.parse_pairs(text, "resources", "resource", _number)

    def fits(self, machine: Mapping[str, float]) -> int:
        """Jobs that a machine with these resources (by Ray's names) holds at once."""
        wanted = {"CPU": self.cpus, "GPU": self.gpus, "memory": float(self.memory or 0)}
        parts = [machine.get(name, 0.0) / amount for name, amount in wanted.items() if amount]
        return math.floor(min(parts) + 1e-9)


def _number(key: str, text: str) -> float:
    units = MEMORY_UNITS if key == "memory" else {"": 1}
    match = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([A-Za-z]*)", text.strip())
    if not match or match[2].lower() not in units:
        raise UsageError(f"resources.{key}={text!r}: expected a number, for example cpus=2,gpus=0.5,memory=8GiB")
    value = float(match[1]) * units[match[2].lower()]
    return int(value) if key == "memory" else value
