"""What a stranger's parquet file says of itself, looked at before Arrow sees the file.

Arrow trusts a footer in places: it ends the process where Python asks for a codec that it does not know, and recurses
as deep as a schema does. So the footer of a flat table is read here, and anything else is refused. The format:
apache/parquet-format, src/main/thrift/parquet.thrift, whose names stand beside the numbers.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from harness.records.compact_thrift import (
    BINARY,
    BOOL,
    I16,
    I32,
    I64,
    Free,
    Layout,
    ListOf,
    Reader,
    Shape,
    Struct,
    integer,
)

INT64: Final = 2
DOUBLE: Final = 5
BYTE_ARRAY: Final = 6
"""Physical types of columns."""
OPTIONAL: Final = 1
"""Repetition type of a column that may hold nulls."""
SNAPPY: Final = 1
CODECS: Final = {0: "UNCOMPRESSED", SNAPPY: "SNAPPY"}
"""What is read: neither can expand a file a thousandfold."""

_ELEMENT: Layout = {1: I32, 3: I32, 4: BINARY, 5: I32, 6: I32, 10: {1: {}}}
"""SchemaElement: type, repetition_type, name, num_children, converted_type, logicalType of a string."""
_ANY, _TEXT = Free(I64), Free(BINARY)
"""What nothing here asks for."""
_STATISTICS: Layout = {1: _TEXT, 2: _TEXT, 3: _ANY, 4: _ANY, 5: _TEXT, 6: _TEXT, 7: BOOL, 8: BOOL}
_COLUMN: Layout = {
    1: I32, 2: ListOf(I32), 3: ListOf(BINARY), 4: I32, 5: Free(I64, "values"), 6: Free(I64, "sizes"),
    7: Free(I64, "stored"), 9: Free(I64, "data"), 10: Free(I64, "index"), 11: Free(I64, "dictionary"), 12: _STATISTICS,
    13: ListOf({1: I32, 2: I32, 3: I32}), 16: {1: _ANY, 2: ListOf(_ANY), 3: ListOf(_ANY)},
}  # fmt: skip
"""ColumnMetaData: type, encodings, path_in_schema, codec, num_values, total_uncompressed_size, total_compressed_size,
three offsets, statistics, encoding_stats, size_statistics."""
_CHUNK: Layout = {2: _ANY, 3: _COLUMN}
"""ColumnChunk: file_offset, meta_data; no key, and no data in another file."""
_GROUP: Layout = {1: ListOf(_CHUNK), 2: _ANY, 3: Free(I64, "rows"), 5: _ANY, 6: _ANY, 7: I16}
"""RowGroup: columns, total_byte_size, num_rows, file_offset, total_compressed_size, ordinal."""
_FILE: Layout = {1: I32, 2: ListOf(_ELEMENT), 3: Free(I64, "total"), 4: ListOf(_GROUP),
                 5: ListOf({1: BINARY, 2: BINARY}), 6: BINARY, 7: ListOf({1: {}})}  # fmt: skip
"""FileMetaData: version, schema, num_rows, row_groups, key_value_metadata, created_by, column_orders."""
_PLACED = {"values": 5, "stored": 7, "dictionary": 11, "data": 9}
"""Of a column: how many values, bytes of its pages, and where those of its dictionary and of its values begin."""
_WRITER = b"parquet-cpp-arrow version "
"""Ours. Of old files of parquet-mr, Arrow reads some bytes more than their footers say (PARQUET-816)."""
_MAGIC = b"PAR1"
_SHAPES, _LONGEST = 4, 10_000
"""So many shapes are kept, the last ones, of footers of so many bytes: those of our writer have few and some 1300."""


@dataclass(frozen=True)
class Claims:
    """What a footer of a known shape says of the pages of a table in one piece, an entry a column."""

    shape: Shape
    parts: Mapping[str, Sequence[bytes]]
    """As `Shape.parts` gives them; the dictionary of a column that has none begins where its values do."""
    listed: Sequence[bool]
    """Whether a column has a dictionary."""
    plain: Sequence[bool]
    """Whether a column is of doubles that may be null, compressed by snappy, without a dictionary."""
    footer: int
    """Where the footer begins."""

    def beside(self, data: bytes, column: int) -> Hashable | None:
        """All that the values of the other columns follow from; None where one cannot say, as of another writer's file.

        Two files that agree in this agree in all columns but this one: in what is said of them, in their bytes, and in
        where these lie, before the pages of this column or behind them.
        """
        parts = self.parts
        start, stop = self._pages(column)
        if not self._within(column, len(_MAGIC), self.footer):
            return None
        # Columns behind this one begin later where its scores take more bytes: of them the distance is the same.
        said = [part for name in _PLACED for part in parts[name][:column]]
        said += [*parts["total"], *parts["rows"], *parts["values"][column:], *parts["stored"][column + 1 :]]
        places = [integer(part) - stop for name in ("dictionary", "data") for part in parts[name][column + 1 :]]
        return self.shape, *said, *places, data[:start], data[stop : self.footer]

    def apart(self, column: int) -> bool:
        """Whether no other column has pages among those of this one. Files alike in `beside` are alike in this."""
        start, stop = self._pages(column)
        before = all(self._within(other, len(_MAGIC), start) for other in range(column))
        return before and all(self._within(other, stop, self.footer) for other in range(column + 1, len(self.listed)))

    def chunk(self, data: bytes, column: int) -> bytes:
        """All that a file has of a column."""
        start, stop = self._pages(column)
        return data[start:stop]

    def _within(self, column: int, low: int, high: int) -> bool:
        """Whether the pages of a column lie there, and those of its dictionary before those of its values."""
        first, last = self._pages(column)
        values = integer(self.parts["data"][column])
        return low <= first and (first < values if self.listed[column] else first == values) and values < last <= high

    def _pages(self, column: int) -> tuple[int, int]:
        first = integer(self.parts["dictionary"][column])
        return first, first + integer(self.parts["stored"][column])


def check_footer(data: bytes, columns: Sequence[str], *, rows: int, size: int) -> Claims | None:
    """Refuse a file that is no flat table of these columns, or claims to be large.

    Args:
        data: the whole file.
        columns: names, in order.
        rows: most rows.
        size: most bytes of all pages, decompressed.

    Returns:
        What it says of the pages; None for a table in several pieces, and for what our writer does not write.

    Raises:
        ValueError: so it is; says what is wrong.
    """
    length = int.from_bytes(data[-8:-4], "little")
    if data[:4] != _MAGIC or data[-4:] != _MAGIC or not 0 < length <= len(data) - 12:
        raise ValueError("it has no footer of parquet at its end")
    footer = data[-8 - length : -8]
    claims = None
    for shape, listed, plain in _shapes(tuple(columns)):
        if (parts := shape.parts(footer)) is not None:
            numbers = {name: [integer(part) for part in parts.get(name, ())] for name in ("total", "rows", "sizes")}
            claims = _claims(shape, parts, listed, plain, len(data) - 8 - length)
            break
    else:
        numbers = _read(footer, columns)
    (total,), claimed, sizes = (numbers.get(name, []) for name in ("total", "rows", "sizes"))
    if not 0 <= total <= rows or min(claimed, default=0) < 0 or sum(claimed) != total:
        raise ValueError(f"it has {total} rows, at most {rows} are read")
    if min(sizes, default=0) < 0 or sum(sizes) > size:
        raise ValueError(f"it expands to more than {size} bytes")
    return claims


def _claims(
    shape: Shape, parts: dict[str, list[bytes]], listed: Sequence[bool], plain: Sequence[bool], footer: int
) -> Claims | None:
    """What a footer of a known shape says; None for a table in several pieces, or with an index before its values."""
    if any(len(parts.get(name, ())) != len(listed) for name in ("values", "stored", "data")) or "index" in parts:
        return None
    own = iter(parts.get("dictionary", ()))
    first = [next(own) if has else data for has, data in zip(listed, parts["data"], strict=True)]
    return Claims(shape, {**parts, "dictionary": first}, listed, plain, footer)


def _read(footer: bytes, columns: Sequence[str]) -> dict[str, list[int]]:
    """The numbers of a footer of no shape that is known; all else is checked, and holds of its shape from now on."""
    found = Reader(footer).struct(_FILE)
    _check_schema(_of(found, 2), columns)
    groups, total = _of(found, 4), _of(found, 3)
    claimed = [_of(group, 3) for group in groups]
    if any(len(_of(group, 1)) != len(columns) for group in groups):
        raise ValueError("a part of it lacks columns")
    chunks = [_of(chunk, 3) for group in groups for chunk in _of(group, 1)]
    if any(_of(chunk, 4) not in CODECS for chunk in chunks):
        raise ValueError(f"it is compressed by something else than {' or '.join(CODECS.values())}")
    sizes = [_of(chunk, 6) for chunk in chunks]
    numbers = {"total": [total], "rows": claimed, "sizes": sizes}
    placed = {name: [chunk[field] for chunk in chunks if field in chunk] for name, field in _PLACED.items()}
    known = _shapes(tuple(columns))
    if len(footer) <= _LONGEST and found.get(6, b"").startswith(_WRITER):
        shape = Shape(footer, _FILE)
        parts = shape.parts(footer) or {}
        read = {name: [integer(part) for part in parts.get(name, ())] for name in (*numbers, *placed)}
        listed = tuple(_PLACED["dictionary"] in chunk for chunk in chunks)
        plain = tuple((_of(element, 1), element.get(3), _of(chunk, 4), has) == (DOUBLE, OPTIONAL, SNAPPY, False)
                      for element, chunk, has in zip(_of(found, 2)[1:], chunks, listed, strict=False))  # fmt: skip
        known += [(shape, listed, plain)] if read == numbers | placed else []  # not where a field is there twice
        del known[:-_SHAPES]
    return numbers


@cache
def _shapes(columns: tuple[str, ...]) -> list[tuple[Shape, tuple[bool, ...], tuple[bool, ...]]]:
    """Of our footers with these columns, as read before: looking at one of these takes a fiftieth of the time. With it,
    `Claims.listed` and `Claims.plain`, which follow from its shape."""
    return []


def _check_schema(elements: list[Struct], columns: Sequence[str]) -> None:
    """One root, and below it nothing but the columns."""
    names = [_of(element, 4).decode("utf-8", "replace") for element in elements[1:]]
    if names != list(columns):
        raise ValueError(f"its columns are {', '.join(names)[:200]}, not {', '.join(columns)}")
    if _of(elements[0], 5) != len(columns) or any(5 in element for element in elements[1:]):
        raise ValueError("its columns have columns")
    if any(_of(element, 1) not in (INT64, DOUBLE, BYTE_ARRAY) for element in elements[1:]):
        raise ValueError("its columns are of other types")


def _of(struct: Struct, field: int) -> Any:
    if field not in struct:
        raise ValueError(f"its footer lacks a field {field}")
    return struct[field]
