"""Numbers that a parquet file stores as they are, in one page: read without Arrow, which takes fifteen times as long.

A page says how it is encoded in a header before it. One page is read by Arrow first; what is read here has the same
header but for its compressed size, and the same before its numbers. So it can mean nothing else. The header:
apache/parquet-format, src/main/thrift/parquet.thrift, PageHeader and DataPageHeader.
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
_CODEC, _NUMBER = "snappy", np.dtype("<f8")
_LEVELS = 64
"""Bytes before the numbers: what says that none is null has six."""


@dataclass(frozen=True)
class PlainPage:
    """A page of so many numbers in a column of its own."""

    header: Shape
    length: bytes
    """How many bytes it has decompressed, as the compressed bytes begin."""
    levels: bytes
    """What is before the numbers."""
    size: int
    """Bytes, decompressed."""

    def values(self, chunk: bytes) -> npt.NDArray[np.float64] | None:
        """The numbers of a column that is such a page; None where it is not, or may not be.

        Args:
            chunk: all that a file has of the column.
        """
        found = self.header.start(chunk)
        if found is None:
            return None
        parts, end = found
        if integer(parts["stored"][0]) != len(chunk) - end or not chunk.startswith(self.length, end):
            return None
        try:
            raw = pa.decompress(memoryview(chunk)[end:], self.size, codec=_CODEC, asbytes=True)
        except (pa.ArrowException, OSError):
            return None
        return np.frombuffer(raw, _NUMBER, offset=len(self.levels)) if raw.startswith(self.levels) else None


def plain_page(chunk: bytes, values: npt.NDArray[np.float64]) -> PlainPage | None:
    """The page in which a column of these numbers is stored; None where it is stored otherwise.

    Args:
        chunk: all that a file has of the column.
        values: what Arrow reads in it, none of them null.
    """
    try:
        reader = Reader(chunk)
        size = reader.struct(_HEADER)[2]
        header, body = Shape(chunk, _HEADER), chunk[reader.place :]
        if not 0 <= size - values.nbytes <= _LEVELS or len(body) == size:  # or not compressed
            return None
        raw: Any = pa.decompress(body, size, codec=_CODEC, asbytes=True)
    except (pa.ArrowException, OSError, ValueError, LookupError):
        return None
    numbers = values.astype(_NUMBER).tobytes()
    page = PlainPage(header, _varint(size), raw[: len(raw) - len(numbers)], size)
    return page if raw.endswith(numbers) and np.array_equal(_or_none(page.values(chunk)), values) else None


def _or_none(values: npt.NDArray[np.float64] | None) -> npt.NDArray[np.float64]:
    return np.empty(0) if values is None else values


def _varint(number: int) -> bytes:
    """As snappy begins: seven bits a byte, the least ones first."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])
