"""Items out of a parquet file that may come from anybody: what its footer claims is looked at before a page is decoded.

A ranking reads the items of ten thousand cells and needs arrays of them, not objects. `columns` gives it those where it
can show that nothing in them would be refused; whatever else is there goes through `harness.records.items.check_items`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from harness.records.cell_files import MAX_BYTES
from harness.records.items import (
    COLUMNS,
    LARGEST_SCORE,
    LONGEST_NAME,
    MAX_ROWS,
    NAMES,
    SEEDED,
    SIDES,
    Item,
    ItemTable,
    Scores,
    Side,
    check_items,
)
from harness.records.parquet_footer import check_footer

_READ = [pa.dictionary(pa.int32(), pa.string()) if name in NAMES else pa.int64() if name == "seed" else pa.float64()
         for name in COLUMNS]  # fmt: skip
"""Types of the columns, as they are read."""
_PLACES: dict[str, int] = {side: place for place, side in enumerate(SIDES)}
_SEEDED = np.array([side in SEEDED for side in SIDES])

Numbers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Columns(ItemTable):
    """Items of one metric, as arrays of one entry an item; all of them would pass `check_items`."""

    def __init__(
        self, metric: str, names: tuple[str, ...], sides: Numbers, seeds: Numbers, items: Numbers, values: Floats,
        weights: Floats,
    ) -> None:  # fmt: skip
        """
        Args:
            metric: of all of them.
            names: ids of items, sorted.
            sides: places in `SIDES`.
            seeds: 0 for the sides that have none.
            items: places in `names`.
            values: scores.
            weights: weights.
        """
        self.metric, self.names, self.weights = metric, names, weights
        self.sides, self.seeds, self.items, self.values = sides, seeds, items, values
        self._order = np.lexsort((seeds, items, sides))
        self._ends = np.searchsorted(sides[self._order], range(len(SIDES) + 1)).tolist()

    def __len__(self) -> int:
        return len(self.sides)

    def __getitem__(self, index: Any) -> Any:
        return list(self)[index]

    def __iter__(self) -> Iterator[Item]:
        arrays = (self.sides, self.seeds, self.items, self.values, self.weights)
        for side, seed, item, value, weight in zip(*(array.tolist() for array in arrays), strict=True):
            model = SIDES[side]
            yield Item(model, self.metric, seed if model in SEEDED else None, self.names[item], value, weight)

    def all_differ(self) -> bool:
        """Whether no two agree in side, seed and item."""
        same = [np.diff(array[self._order]) == 0 for array in (self.sides, self.seeds, self.items)]
        return not (same[0] & same[1] & same[2]).any()

    def scores(self, model: Side, metric: str) -> Scores | None:
        """See `harness.records.items.scores`."""
        side = SIDES.index(model)
        rows = self._order[self._ends[side] : self._ends[side + 1]]
        if not len(rows) or metric != self.metric:
            return None
        items = self.items[rows]
        number = int(np.searchsorted(items, items[0], side="right"))
        shape = (-1, number) if len(rows) % number == 0 else (1, -1)  # the second says that they are not the same
        seeds, items = self.seeds[rows].reshape(shape), items.reshape(shape)
        if (items != items[:, :1]).any() or (seeds != seeds[0]).any():
            raise ValueError(f"the seeds of {model} did not score the same items in {metric!r}")
        values, weights = self.values[rows].reshape(shape), self.weights[rows].reshape(shape)
        if (weights != weights[:, :1]).any():
            raise ValueError(f"the seeds of {model} weigh the same item differently in {metric!r}")
        whole = len(items) == len(self.names)
        names = self.names if whole else tuple(map(self.names.__getitem__, items[:, 0].tolist()))
        return Scores(names, tuple(seeds[0].tolist()) if model in SEEDED else (None,), values, weights[:, 0])


def rows(data: bytes, metric: str | None) -> list[Item]:
    """The items of a file, of one metric or of all.

    Raises:
        pa.ArrowException, OSError, ValueError, TypeError: not a whole file of items.
    """
    return check_items(_items(_table(data), metric))


def columns(data: bytes, metric: str) -> Sequence[Item]:
    """`rows`, with arrays behind them where that is possible; it raises the same."""
    table = _table(data)
    try:
        found = _columns(table, metric)
    except (pa.ArrowException, ValueError):
        found = None
    return check_items(_items(table, metric)) if found is None else found


def _table(data: bytes) -> Any:
    """All rows. Text is read as dictionaries: a long name that a million rows share is one text, not a million."""
    check_footer(data, COLUMNS, rows=MAX_ROWS, size=4 * MAX_BYTES)
    file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=list(NAMES), arrow_extensions_enabled=False,
                          thrift_string_size_limit=MAX_BYTES, thrift_container_size_limit=100_000)  # fmt: skip
    if (schema := file.schema_arrow).types != _READ:
        wrong = [f"{name} of {kind}" for name, kind, read in zip(COLUMNS, schema.types, _READ, strict=True)
                 if kind != read]  # fmt: skip
        raise ValueError(f"its columns are of other types: {', '.join(wrong)[:200]}")
    table = file.read(use_threads=False)  # small: threads cost more
    table.validate(full=True)  # a damaged page may point beyond its dictionary, or hold no UTF-8
    return table


def _items(table: Any, metric: str | None) -> Iterable[Item]:
    if metric is not None:
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


def _columns(table: Any, metric: str) -> Columns | None:
    """The rows of one metric; None where something in them may be refused, or they do not come in one piece."""
    if len(batches := table.to_batches()) != 1:
        return None
    columns = dict(zip(COLUMNS, batches[0].columns, strict=True))
    if any(column.null_count for name, column in columns.items() if name != "seed"):
        return None
    texts = {name: columns[name].dictionary.to_pylist() for name in NAMES}
    if texts["metric"].count(metric) != 1 or len(metric) > LONGEST_NAME:
        return None
    keep = np.flatnonzero(columns["metric"].indices.to_numpy() == texts["metric"].index(metric))
    sides = np.array([_PLACES.get(name, -1) for name in texts["model"]])[columns["model"].indices.to_numpy()[keep]]
    codes = columns["item"].indices.to_numpy()[keep]
    used = np.flatnonzero(np.bincount(codes)).tolist()
    used.sort(key=texts["item"].__getitem__)
    names = _shared(tuple([texts["item"][code] for code in used]))
    if max(map(len, names), default=0) > LONGEST_NAME or len(set(names)) < len(names):
        return None
    places = np.zeros(len(texts["item"]), np.int64)
    places[used] = np.arange(len(used))
    seeds = columns["seed"].fill_null(0).to_numpy()[keep]
    seeded = columns["seed"].is_valid().to_numpy(zero_copy_only=False)[keep]
    values, weights = (columns[name].to_numpy()[keep] for name in ("score", "weight"))
    sound = ((sides >= 0) & (seeded == _SEEDED[sides]) & (np.abs(values) <= LARGEST_SCORE)
             & (weights >= 1 / LARGEST_SCORE) & (weights <= LARGEST_SCORE))  # fmt: skip
    found = Columns(metric, names, sides, seeds, places[codes], values, weights)
    return found if sound.all() and found.all_differ() else None


@lru_cache(maxsize=64)
def _shared(names: tuple[str, ...]) -> tuple[str, ...]:
    """The same names as one object: the cells of a task have the same items."""
    return names
