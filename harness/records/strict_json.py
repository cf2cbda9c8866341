"""JSON from strangers: one reading or none. What Python's parser settles silently is refused here.

Refused: a key given twice (Python keeps the last), NaN and Infinity, numbers that overflow, other encodings than UTF-8,
and nesting that would exhaust the stack of whatever walks the value later.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import orjson

DEPTH = 60
"""Deepest nesting of lists and objects; a record needs eight."""
LARGEST = 1e100
"""Largest magnitude of a number: no cost or score comes near, and sums and products of such numbers stay finite."""
_LEAST, _END = -(2**63), 2**64
"""Integers from the one to before the other are read."""
_DEEP = b"\n" + b"  " * (DEPTH - 1)
_QUICK = 1 << 18
"""Bytes of the largest value that is read quickly: written with indents it may take a hundred times as many."""
_EXPONENT, _EXACT = re.compile(rb"\de\+(\d+)"), 18
"""Every integer that is not read, taken for a float, has at least this exponent; so has any number above `LARGEST`."""


def loads(data: bytes, *, constants: bool = False) -> Any:
    """The value that `data` spells.

    Args:
        data: UTF-8, without a byte-order mark.
        constants: allow NaN, Infinity and numbers of any size, as the configurations of some models have them.

    Raises:
        ValueError: not JSON, or JSON that is refused; says why.
    """
    if not constants and (plain := _plain(data)) is not None:
        return plain
    try:
        text = data.decode("utf-8")
        value = json.loads(text, object_pairs_hook=no_duplicates, parse_float=float if constants else _number,
                           parse_int=int if constants else _integer,
                           parse_constant=None if constants else _refuse)  # fmt: skip
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from None
    except RecursionError:
        raise ValueError(f"nested deeper than {DEPTH}") from None
    if _deeper_than(value, DEPTH):
        raise ValueError(f"nested deeper than {DEPTH}")
    return value


def _plain(data: bytes) -> Any:
    """The value, where a quick reading shows that nothing in it is refused; None where only the slow one can tell.

    orjson reads no constants and no infinite numbers. The rest shows in how it writes the value again: a key that was
    given twice is there once, so a colon is missing; an integer that it took for a float has an exponent; and what lies
    deep stands behind many spaces, where no text can put a line's end.
    """
    if len(data) > _QUICK:
        return None
    try:
        value = orjson.loads(data)
        again = orjson.dumps(value, option=orjson.OPT_INDENT_2)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None
    if b"\\u" in data or data.count(b":") != again.count(b":") or _DEEP in again:  # an escape may be a colon
        return None
    if b"e+" in again and any(len(exponent) > 2 or int(exponent) >= _EXACT for exponent in _EXPONENT.findall(again)):
        return None
    return value if isinstance(value, (dict, list)) else None


def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An `object_pairs_hook` that refuses a key given twice.

    Raises:
        ValueError: names the key.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:80]!r} is given twice")
    return found


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or abs(value) > LARGEST:
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _integer(text: str) -> int:
    if len(text) > 20 or not _LEAST <= int(text) < _END:
        raise ValueError(f"the number {text[:40]} is too large")
    return int(text)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not strict JSON")


def _deeper_than(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        level = [part for outer in level if isinstance(outer, (dict, list))
                 for part in (outer.values() if isinstance(outer, dict) else outer)]  # fmt: skip
        if not level:
            return False
    return any(isinstance(part, (dict, list)) for part in level)
