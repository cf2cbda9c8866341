"""Thrift's compact protocol, read by a layout: what is not in the layout, or of another type than there, is refused.

A lenient reader passes over what it does not expect, and two lenient readers pass over different things, so the same
bytes would tell them different values. A strict one is also bounded: it goes no deeper than its layout, and makes no
more values than there are bytes. The encoding: apache/thrift, doc/specs/thrift-compact-protocol.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

BOOL, I16, I32, I64, BINARY = 1, 4, 5, 6, 8
"""Types of plain values on the wire."""
_FALSE, _LIST, _STRUCT = 2, 9, 12
_CUT = "its footer is cut short"

Layout = dict[int, "Kind"]
"""Of a struct: field ids, and what each holds."""
Struct = dict[int, Any]
"""Values by field id; of a field that is there twice the last, as every reader has it."""


@dataclass(frozen=True)
class ListOf:
    """A list whose values are all of one kind."""

    kind: Kind


@dataclass(frozen=True)
class Free:
    """A number or bytes that may be another in every file of a `Shape`."""

    kind: int
    name: str = ""
    """Of a number that a `Shape` gives; of bytes, and of numbers that nobody asks for, empty."""


Kind = int | ListOf | Free | Layout


class Reader:
    """One pass over bytes; every method raises ValueError at what the layout does not have."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0
        self.free: list[tuple[int, int, Free]] = []
        """Where every `Free` value lies, from and to, in order."""

    def struct(self, layout: Layout) -> Struct:
        """The struct that begins here."""
        fields: Struct = {}
        number = 0
        while head := self._byte():
            wire = head & 15
            number = number + (head >> 4) if head > 15 else self.number()
            kind = layout.get(number)
            if kind is None or (wire != _wire(kind) and (kind, wire) != (BOOL, _FALSE)):
                raise ValueError(f"its footer has a field {number} of type {wire}, which is not read")
            fields[number] = wire == BOOL if kind == BOOL else self._value(kind)
        return fields

    def _value(self, kind: Kind) -> Any:
        if isinstance(kind, dict):
            return self.struct(kind)
        if isinstance(kind, ListOf):
            return self._list(kind.kind)
        if isinstance(kind, Free):
            start, value = self.place, self._value(kind.kind)
            self.free.append((start, self.place, kind))
            return value
        return self._take(self._unsigned()) if kind == BINARY else self.number()

    def _list(self, kind: Kind) -> list[Any]:
        head = self._byte()
        size = head >> 4 if head < 0xF0 else self._unsigned()
        if size and head & 15 != _wire(kind):
            raise ValueError(f"its footer has a list of type {head & 15}, which is not read")
        if size > len(self.data) - self.place:  # every value takes a byte at least
            raise ValueError(_CUT)
        return [self._value(kind) for _ in range(size)]

    def _byte(self) -> int:
        self.place += 1
        try:
            return self.data[self.place - 1]
        except IndexError:
            raise ValueError(_CUT) from None

    def _take(self, size: int) -> bytes:
        self.place += size
        if self.place > len(self.data):
            raise ValueError(_CUT)
        return self.data[self.place - size : self.place]

    def _unsigned(self) -> int:
        if (byte := self._byte()) < 128:
            return byte
        value = byte & 127
        for shift in range(7, 64, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("its footer has a number of more than 64 bits")

    def number(self) -> int:
        """The signed integer that begins here."""
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)


class Shape:
    """Structs that a layout reads as it reads one example, but for their `Free` values.

    Ten thousand files of one writer differ in nothing else. What holds of the example's other values holds of theirs.
    """

    def __init__(self, example: bytes, layout: Layout) -> None:
        """Raises ValueError at what the layout does not have."""
        reader, parts, names, end = Reader(example), [], [], 0
        reader.struct(layout)
        for start, stop, free in reader.free:
            pattern = _BYTES if free.kind == BINARY else _NUMBER
            parts += [re.escape(example[end:start]), b"(" + pattern + b")" if free.name else pattern]
            names += [free.name] if free.name else []
            end = stop
        self._names, rest = names, re.escape(example[end : reader.place])
        self._pattern = re.compile(b"".join([*parts, rest]), re.DOTALL)

    def parts(self, data: bytes) -> dict[str, list[bytes]] | None:
        """The named numbers in order, as they are spelled; None where `data` is of another shape, or may be."""
        found = self._pattern.fullmatch(data)
        return self._named(found) if found else None

    def start(self, data: bytes) -> tuple[dict[str, list[bytes]], int] | None:
        """The same where `data` begins with such structs, and where they end."""
        found = self._pattern.match(data)
        return (self._named(found), found.end()) if found else None

    def _named(self, found: re.Match[bytes]) -> dict[str, list[bytes]]:
        parts: dict[str, list[bytes]] = {name: [] for name in self._names}
        for name, part in zip(self._names, found.groups(), strict=True):
            parts[name].append(part)
        return parts


@lru_cache(maxsize=4096)
def integer(part: bytes) -> int:
    """The signed integer that one of `Shape.parts` spells."""
    return Reader(part).number()


_NUMBER = rb"[\x80-\xff]{0,9}[\x00-\x7f]"
_BYTES = b"(?:" + b"|".join(re.escape(bytes([size])) + b".{%d}" % size for size in range(64)) + b")"
"""Their number comes first; longer ones match no shape."""


def _wire(kind: Kind) -> int:
    if isinstance(kind, Free):
        return kind.kind
    return kind if isinstance(kind, int) else _LIST if isinstance(kind, ListOf) else _STRUCT
