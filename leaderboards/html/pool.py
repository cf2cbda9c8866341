"""Compact JSON for a page of many records: equal values are kept once, and nothing in it can end a script element."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

_IN_SCRIPT = {char: f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}

_COMPACT = json.JSONEncoder(separators=(",", ":"), allow_nan=False, ensure_ascii=False)


class Pool:
    """JSON values by number; equal ones share it."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._texts: dict[str, int] = {}
        self._others: dict[str, int] = {}
        self._made: dict[str, int] = {}

    def add(self, value: Any) -> int:
        """The number of `value` (strict JSON)."""
        known, key = (self._texts, value) if isinstance(value, str) else (self._others, dumps(value))
        found = known.get(key)
        if found is None:
            found = known[key] = len(self.values)
            self.values.append(value)
        return found

    def maybe(self, value: Any) -> int | None:
        """The same; None for None and for what is empty."""
        return self.add(value) if value else None

    def made(self, key: str, make: Callable[[], Any]) -> int:
        """The number of what `make` gives, which follows from `key`: made once a key."""
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = self.add(make())
        return found


def dumps(value: Any) -> str:
    """Strict JSON without spaces.

    Raises:
        ValueError: NaN or infinity somewhere in `value`.
    """
    return _COMPACT.encode(value)


def script_json(value: Any) -> str:
    """`dumps` for the text of a script element: no tag, comment or entity can begin in it."""
    text = dumps(value)
    for char, escape in _IN_SCRIPT.items():  # a tenth of the time of `translate`: there are few
        text = text.replace(char, escape)
    return text


def short(value: float | None) -> float | None:
    """Four significant digits, for drawing; whole numbers as such."""
    if value is None:
        return None
    rounded = float(f"{value:.4g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded
