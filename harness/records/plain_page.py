"""Numbers that a parquet file stores as they are, in one page: read without Arrow, which takes fifteen times as long.

Read here is what `harness.records.items.write_items` writes, and nothing else: one page of the first kind, compressed
by snappy, its numbers plain, none of them null. The format says what such a page means: apache/parquet-format,
Encodings.md, and src/main/thrift/parquet.thrift, PageHeader and DataPageHeader.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from harness.records.compact_thrift import I32, Free, Layout, Reader, Shape, integer

_HEADER: Layout = {1: I32, 2: I32, 3: Free(I32, "stored"), 5: {1: I32, 2: I32, 3: I32, 4: I32, 5: {}}}
"""type, uncompressed_page_size, compressed_page_size; of data_page_header num_values, three encodings, statistics."""
_DATA_PAGE, _PLAIN, _RLE = 0, 0, 3
_NUMBER = np.dtype("<f8")


@dataclass(frozen=True)
class PlainPage:
    """A page of so many numbers in a column of its own."""

    header: Shape
    """All of it is the same in another such page but its compressed size."""
    levels: bytes
    """What is before the numbers: that none is null."""
    size: int
    """Bytes, decompressed."""
    length: bytes
    """The same, as the compressed bytes begin."""

    def values(self, chunk: bytes) -> npt.NDArray[np.float64] | None:
        """The numbers of a column that is such a page; None where it is none.

        Args:
            chunk: all that a file has of the column, which is compressed by snappy and may hold nulls.
        """
        found = self.header.start(chunk)
        if found is None:
            return None
        parts, end = found
        if integer(parts["stored"][0]) != len(chunk) - end or not chunk.startswith(self.length, end):
            return None
        try:
            raw: Any = pa.decompress(memoryview(chunk)[end:], self.size, codec="snappy", asbytes=True)
        except (pa.ArrowException, OSError):
            return None
        return np.frombuffer(raw, _NUMBER, offset=len(self.levels)) if raw.startswith(self.levels) else None


def plain_page(chunk: bytes, numbers: int) -> PlainPage | None:
    """The page that a column of so many numbers is stored in; None where it is stored otherwise.

    Args:
        chunk: all that a file has of the column.
        numbers: how many rows the file has, one at least.
    """
    try:
        header = Reader(chunk).struct(_HEADER)
        about = header[5]
        said = (header[1], header[2], about[1], about[2], about[3])
        shape = Shape(chunk, _HEADER)
    except (ValueError, LookupError):
        return None
    levels = _levels(numbers)
    size = len(levels) + numbers * _NUMBER.itemsize
    page = PlainPage(shape, levels, size, _varint(size))
    right = said == (_DATA_PAGE, page.size, numbers, _PLAIN, _RLE)
    return page if right and page.values(chunk) is not None else None


def _levels(numbers: int) -> bytes:
    """One run of so many ones, and its length before it."""
    run = _varint(numbers << 1) + b"\x01"
    return len(run).to_bytes(4, "little") + run


def _varint(number: int) -> bytes:
    """Seven bits a byte, the least ones first."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])
