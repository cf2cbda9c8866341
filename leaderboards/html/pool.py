"""Compact JSON for a page of many records: equal values are kept once, and nothing in it can end a script element.

A page may be made in parts, by processes of their own: each has a pool, and `moved` brings what is in it into another.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import orjson

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
            return self.take(quick_json(value))
        found = self._plain.get(value)
        if found is None:
            found = self._plain[value] = self.take(quick_json(value))
        return found

    def take(self, text: str) -> int:
        """The number of a value that is JSON already."""
        found = self._places.get(text)
        if found is None:
            found = self._places[text] = len(self.texts)
            self.texts.append(text)
        return found

    def maybe(self, value: Any) -> int:
        """The same; `NOTHING` for None and for what is empty."""
        return self.add(value) if value else NOTHING

    def made(self, key: str, make: Callable[[], Any]) -> int:
        """The number of what `make` gives, which follows from `key`: made once a key."""
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = self.add(make())
        return found


def moved(texts: Sequence[str], pool: Pool) -> list[int | None]:
    """What the numbers of one pool are in another, which takes its values; of `NOTHING`, None."""
    return [*map(pool.take, texts), None]


NOTHING = -1
"""Stands for no value among numbers that are moved: the last of `moved`."""


def dumps(value: Any) -> str:
    """Strict JSON without spaces.

    Raises:
        ValueError: NaN or infinity somewhere in `value`.
    """
    return _COMPACT.encode(value)


def quick_json(value: Any) -> str:
    """`dumps`, but that NaN and infinity become null: no record has them."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:  # a lone surrogate, or an integer of more than 64 bits
        return dumps(value)


def script_json(value: Any, pool: Pool | None = None) -> str:
    """`quick_json` for the text of a script element: no tag, comment or entity can begin in it.

    Args:
        value: strict JSON; with a pool, an object that is not empty.
        pool: goes into that object as `pool`.
    """
    text = quick_json(value)
    if pool is not None:
        text = f'{text[:-1]},"pool":[{",".join(pool.texts)}]}}'
    for char, escape in _IN_SCRIPT.items():  # a tenth of the time of `translate`: there are few
        text = text.replace(char, escape)
    return text


@lru_cache(maxsize=1 << 16)
def short(value: float | None) -> float | None:
    """Four significant digits, for drawing; whole numbers as such."""
    if value is None:
        return None
    rounded = float(f"{value:.4g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded
