"""Items out of a parquet file that may come from anybody: what its footer claims is looked at before a page is decoded.

A ranking reads the items of ten thousand cells and needs arrays of them, not objects. `columns` gives it those where it
can show that nothing in them would be refused; whatever else is there goes through `harness.records.items.check_items`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harness.records.cell_files import MAX_BYTES
from harness.records.item_table import Columns, ItemFrame, Numbers
from harness.records.items import (
    COLUMNS,
    LARGEST_SCORE,
    LONGEST_NAME,
    MAX_ROWS,
    NAMES,
    SEEDED,
    SIDES,
    Item,
    check_items,
)
from harness.records.parquet_footer import check_footer
from harness.records.plain_page import PlainPage, plain_page

_READ = [pa.dictionary(pa.int32(), pa.string()) if name in NAMES else pa.int64() if name == "seed" else pa.float64()
         for name in COLUMNS]  # fmt: skip
"""Types of the columns, as they are read."""
_PLACES: dict[str, int] = {side: place for place, side in enumerate(SIDES)}
_SEEDED = np.array([side in SEEDED for side in SIDES])

_SCORE = COLUMNS.index("score")
_MOST_FRAMES, _MOST_ROWS, _MOST_BYTES = 64, 20_000, 1 << 18
"""So many frames are kept, of files of so many rows and bytes, with so many characters in names: some 100 MB at most.
A cell has a tenth of that."""


def rows(data: bytes, metric: str | None) -> list[Item]:
    """The items of a file, of one metric or of all.

    Raises:
        pa.ArrowException, OSError, ValueError, TypeError: not a whole file of items.
    """
    check_footer(data, COLUMNS, rows=MAX_ROWS, size=4 * MAX_BYTES)
    return check_items(_items(_table(data), metric))


def columns(data: bytes, metric: str) -> Sequence[Item]:
    """`rows`, with arrays behind them where that is possible; it raises the same."""
    claims = check_footer(data, COLUMNS, rows=MAX_ROWS, size=4 * MAX_BYTES)
    beside = claims.beside(data, _SCORE) if claims and len(data) <= _MOST_BYTES else None
    known = _frames()
    if beside is not None and (kept := known.get((metric, beside))) is not None:
        found = _scored(kept, data, claims.chunk(data, _SCORE) if claims else b"")
        if found is not None:
            return found
    table = _table(data)
    try:
        made = _columns(table, metric)
    except (pa.ArrowException, ValueError):
        made = None
    if made is None:
        return check_items(_items(table, metric))
    found, keep = made
    small = sum(map(len, found.frame.names)) <= _MOST_BYTES and table.num_rows <= _MOST_ROWS
    if claims and beside is not None and small and claims.apart(_SCORE):
        if len(known) >= _MOST_FRAMES:
            known.pop(next(iter(known)))
        page = plain_page(claims.chunk(data, _SCORE), table.num_rows) if claims.plain[_SCORE] else None
        known[metric, beside] = _Kept(found.frame, keep, table.num_rows, page)
    return found


class _Kept(NamedTuple):
    """What is the same in files that are alike beside their scores."""

    frame: ItemFrame
    keep: Numbers
    """Its rows."""
    rows: int
    """All rows of such a file."""
    page: PlainPage | None
    """How the scores are stored, where they are stored as `write_items` does."""


@cache
def _frames() -> dict[Hashable, _Kept]:
    """By all that they follow from: what the last files had beside their scores.

    The cells of a task have the same items. Of one that has what another had, only the scores are read.
    """
    return {}


def _scored(kept: _Kept, data: bytes, chunk: bytes) -> Columns | None:
    """The items of a file whose frame is known; None where a score may be refused, or is not there.

    Args:
        kept: what is known.
        data: the file.
        chunk: its part with the scores.
    """
    scores = kept.page.values(chunk) if kept.page else None
    if scores is None:
        column = _file(data).reader.read_column(_SCORE)  # in half the time of `read`
        if column.null_count or len(column) != kept.rows or column.num_chunks != 1:
            return None
        scores = _numbers(column.chunk(0), np.float64)
    values = scores[kept.keep]
    return Columns(kept.frame, values) if np.abs(values).max(initial=0.0) <= LARGEST_SCORE else None  # nor is one NaN


def _file(data: bytes, texts: Sequence[str] = ()) -> Any:
    """`texts`: columns that are read as dictionaries: a long name that a million rows share is one text then."""
    return pq.ParquetFile(pa.BufferReader(data), read_dictionary=texts, arrow_extensions_enabled=False,
                          pre_buffer=False, thrift_string_size_limit=MAX_BYTES,
                          thrift_container_size_limit=100_000)  # fmt: skip


def _table(data: bytes) -> Any:
    """All rows of a file whose footer was checked."""
    file = _file(data, NAMES)
    if (schema := file.schema_arrow).types != _READ:
        wrong = [f"{name} of {kind}" for name, kind, read in zip(COLUMNS, schema.types, _READ, strict=True)
                 if kind != read]  # fmt: skip
        raise ValueError(f"its columns are of other types: {', '.join(wrong)[:200]}")
    table = file.read(use_threads=False)  # small: threads cost more
    table.validate(full=True)  # a damaged page may point beyond its dictionary, or hold no UTF-8
    return table


def _items(table: Any, metric: str | None) -> Iterable[Item]:
    if metric is not None:
        import pyarrow.compute as pc  # late: a ranking seldom needs it

        table = table.filter(pc.equal(table["metric"].cast(pa.string()), metric))
    return (Item(*row) for row in zip(*(_values(table[name]) for name in COLUMNS), strict=True))


def _values(column: Any) -> list[Any]:
    """A column as Python values; equal texts are one object."""
    if not pa.types.is_dictionary(column.type):
        return list(column.to_pylist())
    values = []
    for chunk in column.chunks:
        names = chunk.dictionary.to_pylist()
        values += [None if index is None else names[index] for index in chunk.indices.to_pylist()]
    return values


def _columns(table: Any, metric: str) -> tuple[Columns, Numbers] | None:
    """The items of one metric, and their rows; None where one may be refused, or they do not come in one piece."""
    if len(batches := table.to_batches()) != 1:
        return None
    columns = dict(zip(COLUMNS, batches[0].columns, strict=True))
    if any(column.null_count for name, column in columns.items() if name != "seed"):
        return None
    texts = {name: columns[name].dictionary.to_pylist() for name in NAMES}
    if texts["metric"].count(metric) != 1 or len(metric) > LONGEST_NAME:
        return None
    model, metrics, item = (_numbers(columns[name].indices, np.int32) for name in NAMES)
    keep = np.flatnonzero(metrics == texts["metric"].index(metric))
    sides = np.array([_PLACES.get(name, -1) for name in texts["model"]])[model[keep]]
    codes = item[keep]
    used = np.flatnonzero(np.bincount(codes)).tolist()
    used.sort(key=texts["item"].__getitem__)
    names = tuple([texts["item"][code] for code in used])
    if max(map(len, names), default=0) > LONGEST_NAME or len(set(names)) < len(names):
        return None
    places = np.zeros(len(texts["item"]), np.int64)
    places[used] = np.arange(len(used))
    seed = columns["seed"]
    seeded = _numbers(seed.is_valid().cast(pa.uint8()), np.uint8)[keep] == 1
    seeds = np.where(seeded, _numbers(seed, np.int64)[keep], 0)
    values, weights = (_numbers(columns[name], np.float64)[keep] for name in ("score", "weight"))
    sound = ((sides >= 0) & (seeded == _SEEDED[sides]) & (np.abs(values) <= LARGEST_SCORE)
             & (weights >= 1 / LARGEST_SCORE) & (weights <= LARGEST_SCORE))  # fmt: skip
    frame = ItemFrame(metric, names, sides, seeds, places[codes], weights)
    return (Columns(frame, values), keep) if sound.all() and frame.all_differ() else None


def _numbers(array: Any, kind: type[np.generic]) -> Any:
    """An array of Arrow's as one of numpy's; what is null is any number. `to_numpy` would import pandas first."""
    if not len(array):
        return np.empty(0, kind)
    return np.frombuffer(array.buffers()[1], kind, len(array), array.offset * np.dtype(kind).itemsize)
