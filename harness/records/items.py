"""Per-item scores, the ground that every number of a record stands on. Long form, one row a scored item.

Task items carry the task's metric as their name. Utility items are named `utility/<task>`; those of the held-out
perplexity are `utility/perplexity`, with score = mean log-likelihood a token (nats) and weight = tokens.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from harness.errors import UsageError
from harness.files import atomic_write_bytes, read_regular
from harness.records.cell_files import MAX_BYTES

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Side = Literal["base", "locked", "attacked", "reference"]
SIDES: tuple[Side, ...] = get_args(Side)
SEEDED: tuple[Side, ...] = ("attacked", "reference")
PERPLEXITY = "utility/perplexity"
COLUMNS = ("model", "metric", "seed", "item", "score", "weight")
NAMES = ("model", "metric", "item")
"""The columns of text."""
LARGEST_SCORE = 1e30
"""Magnitude of a score or weight; sums of products of such numbers are finite."""
LONGEST_NAME, MAX_ROWS = 2000, 2_000_000
"""Characters of a name; rows of a file. A cell has some thousand."""


@dataclass(frozen=True, slots=True)
class Item:
    """One scored item of one model."""

    model: Side
    """Which of the four models was scored."""
    metric: str
    """Name of the score; see the module's docstring."""
    seed: int | None
    """Seed of the attack that made the model; None for base and locked, which no attack touched."""
    item: str
    """Stable id, the same for all models."""
    score: float
    """Larger is more of the capability."""
    weight: float = 1.0
    """Bytes, tokens or 1; positive."""


@dataclass(frozen=True)
class Scores:
    """The scores of one model in one metric, as arrays."""

    items: tuple[str, ...]
    """Item ids, sorted."""
    seeds: tuple[int | None, ...]
    """Seeds, sorted; `(None,)` for base and locked."""
    values: npt.NDArray[np.float64]
    """(items, seeds)."""
    weights: npt.NDArray[np.float64]
    """(items,)."""


class ItemTable(Sequence[Item]):
    """Items that are kept as arrays, and so give their scores without being turned into objects first."""

    @abstractmethod
    def scores(self, model: Side, metric: str) -> Scores | None:
        """What `scores` of this module gives and raises."""


def check_items(items: Iterable[Item]) -> list[Item]:
    """The items as a list, refused whole if one of them could not be trusted.

    Raises:
        ValueError: a NaN or infinite score, a weight that is not positive, an unknown model, a seed where none belongs
            or none where one does, a name of more than 2000 characters, or the same item twice. Scores and weights
            are bounded by 1e30, so that what is computed of them is finite.
    """
    rows, seen = list(items), set()
    for row in rows:
        if row.model not in SIDES:
            raise ValueError(f"unknown model {row.model!r} in items; allowed: {', '.join(SIDES)}")
        if not abs(row.score) <= LARGEST_SCORE or not 1 / LARGEST_SCORE <= row.weight <= LARGEST_SCORE:
            raise ValueError(f"item {row.item!r} of {row.model} has score {row.score} and weight {row.weight}")
        if len(row.item) > LONGEST_NAME or len(row.metric) > LONGEST_NAME:
            raise ValueError(f"an item of {row.model} has a name of more than {LONGEST_NAME} characters")
        if (row.seed is None) == (row.model in SEEDED):
            raise ValueError(f"item {row.item!r} of {row.model} has seed {row.seed}")
        if (key := (row.model, row.metric, row.seed, row.item)) in seen:
            raise ValueError(f"item {row.item!r} of {row.model} is scored twice in {row.metric!r}, seed {row.seed}")
        seen.add(key)
    return rows


def write_items(path: Path, items: Iterable[Item]) -> None:
    """Write items as parquet, atomically; `check_items` first."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = (pa.string(), pa.string(), pa.int64(), pa.string(), pa.float64(), pa.float64())
    rows = check_items(items)
    columns = [list(map(attrgetter(name), rows)) for name in COLUMNS]
    table = pa.table([pa.array(column, kind) for column, kind in zip(columns, types, strict=True)], names=COLUMNS)
    sink = BytesIO()
    named = [name for name in COLUMNS if name != "score"]  # scores seldom repeat: they are stored as they are
    pq.write_table(table, sink, use_dictionary=named, store_schema=False, write_statistics=False)
    atomic_write_bytes(path, sink.getvalue())


def read_items(path: Path, metric: str | None = None) -> list[Item]:
    """Items as they were written.

    Args:
        path: what `write_items` wrote.
        metric: only the items of this metric; None is all. Most of a cell's items are of its utility.

    Raises:
        UsageError: not a whole parquet file of items, with just their columns, or larger than any cell's.
    """
    from harness.records.item_files import rows

    with _whole(path):
        return rows(read_regular(path, MAX_BYTES), metric)


def read_table(path: Path | str, metric: str, read: Callable[[], bytes] | None = None) -> Sequence[Item]:
    """`read_items` of one metric, as arrays where that is possible (`ItemTable`).

    Args:
        path: what `write_items` wrote.
        metric: of the items.
        read: gives the file's bytes, as `read_regular` does and with its errors; None reads them.

    Raises:
        UsageError: as `read_items`.
    """
    from harness.records.item_files import columns

    with _whole(path):
        return columns(read() if read else read_regular(path, MAX_BYTES), metric)


@contextmanager
def _whole(path: Path | str) -> Iterator[None]:
    """One line for whatever is wrong with a file of items."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        reason, path = str(error).partition("\n")[0], Path(path)
        raise UsageError(f"{path.name} in {path.parent.name!r} is not a whole file of items: {reason}") from None


def weighted_mean(items: Iterable[Item]) -> float:
    """Mean score by weight, over whatever items are given (seeds count alike when they score the same items).

    Raises:
        ValueError: there are no items.
    """
    rows = list(items)
    if not rows:
        raise ValueError("no items to average")
    return math.fsum(row.score * row.weight for row in rows) / math.fsum(row.weight for row in rows)


def scores(items: Sequence[Item], model: Side, metric: str) -> Scores | None:
    """The scores of one model in one metric; None if it has none.

    Raises:
        ValueError: two seeds did not score the same items with the same weights.
    """
    if isinstance(items, ItemTable):
        return items.scores(model, metric)
    import numpy as np

    rows = {(row.seed, row.item): row for row in items if row.model == model and row.metric == metric}
    if not rows:
        return None
    seeds = sorted({seed for seed, _ in rows}, key=lambda seed: -1 if seed is None else seed)
    names = sorted({name for _, name in rows})
    if len(rows) != len(seeds) * len(names):
        raise ValueError(f"the seeds of {model} did not score the same items in {metric!r}")
    values = np.array([[rows[seed, name].score for seed in seeds] for name in names])
    weights = np.array([[rows[seed, name].weight for seed in seeds] for name in names])
    if (weights != weights[:, :1]).any():
        raise ValueError(f"the seeds of {model} weigh the same item differently in {metric!r}")
    return Scores(tuple(names), tuple(seeds), values, weights[:, 0])
