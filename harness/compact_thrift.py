"""Thrift's compact protocol, as far as a parquet footer needs it: bytes to nested values, bounded by their number.

Arrow's own reader shows no footer before it has read it, and then ends the process at an enum that it does not know.
The encoding: apache/thrift, doc/specs/thrift-compact-protocol.md.
"""

from __future__ import annotations

from typing import Any

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
"""Types of values on the wire."""
DEEPEST = 16
"""Structs and lists in each other; a parquet footer has seven."""
_LARGEST_ID = 2**15 - 1

Struct = dict[tuple[int, int], Any]
"""Fields by (id, type). A reader that expects another type passes over a field, so the type is part of its name."""


class Reader:
    """One pass over bytes; every method raises ValueError at what no honest writer writes."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def struct(self, depth: int = 0) -> Struct:
        """The struct that begins here; of a repeated field the last value, as every reader has it."""
        fields: Struct = {}
        number = 0
        while head := self._byte():
            kind, delta = head & 15, head >> 4
            number = number + delta if delta else self._signed()
            if not 0 < number <= _LARGEST_ID:
                raise ValueError(f"its footer has a field {number}")
            fields[number, kind] = kind == TRUE if kind in (TRUE, FALSE) else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if depth > DEEPEST:
            raise ValueError("its footer is nested too deeply")
        if kind in (I16, I32, I64):
            return self._signed()
        if kind == BINARY:
            return self._take(self._unsigned())
        if kind == STRUCT:
            return self.struct(depth + 1)
        if kind in (LIST, SET):
            return self._list(depth + 1)
        if kind in (TRUE, FALSE, BYTE):  # in a list a truth value is a byte
            return self._byte()
        if kind == DOUBLE:
            return self._take(8)
        raise ValueError(f"its footer has a value of type {kind}")  # maps too: parquet has none

    def _list(self, depth: int) -> list[Any]:
        head = self._byte()
        size, kind = head >> 4, head & 15
        size = self._unsigned() if size == 15 else size
        if size > len(self.data) - self.place:  # every value takes a byte at least
            raise ValueError("its footer is cut short")
        return [self._value(kind, depth) for _ in range(size)]

    def _byte(self) -> int:
        if self.place >= len(self.data):
            raise ValueError("its footer is cut short")
        self.place += 1
        return self.data[self.place - 1]

    def _take(self, size: int) -> bytes:
        if size > len(self.data) - self.place:
            raise ValueError("its footer is cut short")
        self.place += size
        return self.data[self.place - size : self.place]

    def _unsigned(self) -> int:
        value = 0
        for shift in range(0, 64, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                break
        else:
            raise ValueError("its footer has a number of more than 64 bits")
        return value

    def _signed(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)
