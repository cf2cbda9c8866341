"""Compact JSON for a page of many records: equal values are kept once, and nothing in it can end a script element.

A page may be made in parts, by processes of their own: each has a pool, and `Moved` brings what is in it into another.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

_IN_SCRIPT = {char: f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}

_COMPACT = json.JSONEncoder(separators=(",", ":"), allow_nan=False, ensure_ascii=False)


class Pool:
    """JSON values by number; equal ones share it."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        """The values as JSON, by number."""
        self._places: dict[str, int] = {}
        self._plain: dict[str, int] = {}
        self._made: dict[str, int] = {}

    def add(self, value: Any) -> int:
        """The number of `value` (strict JSON)."""
        if not isinstance(value, str):
            return self.take(dumps(value))
        found = self._plain.get(value)
        if found is None:
            found = self._plain[value] = self.take(dumps(value))
        return found

    def take(self, text: str) -> int:
        """The number of a value that is JSON already."""
        found = self._places.get(text)
        if found is None:
            found = self._places[text] = len(self.texts)
            self.texts.append(text)
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


class Moved:
    """The numbers that the values of one pool have in another; a value is taken there when it is first asked for."""

    def __init__(self, texts: Sequence[str], pool: Pool) -> None:
        self._texts, self._pool = texts, pool
        self._places: list[int | None] = [None] * len(texts)

    def __call__(self, place: int | None) -> int | None:
        """The number there; None for None."""
        if place is None:
            return None
        found = self._places[place]
        if found is None:
            found = self._places[place] = self._pool.take(self._texts[place])
        return found

    def all(self, places: Sequence[int | None]) -> list[int | None]:
        """The numbers there."""
        return [self(place) for place in places]


def dumps(value: Any) -> str:
    """Strict JSON without spaces.

    Raises:
        ValueError: NaN or infinity somewhere in `value`.
    """
    return _COMPACT.encode(value)


def script_json(value: Any, pool: Pool | None = None) -> str:
    """`dumps` for the text of a script element: no tag, comment or entity can begin in it.

    Args:
        value: strict JSON; with a pool, an object that is not empty.
        pool: goes into that object as `pool`.
    """
    text = dumps(value)
    if pool is not None:
        text = f'{text[:-1]},"pool":[{",".join(pool.texts)}]}}'
    for char, escape in _IN_SCRIPT.items():  # a tenth of the time of `translate`: there are few
        text = text.replace(char, escape)
    return text


def short(value: float | None) -> float | None:
    """Four significant digits, for drawing; whole numbers as such."""
    if value is None:
        return None
    rounded = float(f"{value:.4g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded
