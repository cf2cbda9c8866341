"""The items of one metric as arrays, in two parts: the scores, and all else, which the cells of a task share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.records.items import SEEDED, SIDES, Item, ItemTable, Scores, Side

Numbers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class ItemFrame:
    """Which items were scored of which models: an entry a row of a file, whatever the scores are."""

    def __init__(
        self, metric: str, names: tuple[str, ...], sides: Numbers, seeds: Numbers, items: Numbers, weights: Floats
    ) -> None:
        """
        Args:
            metric: of all of them.
            names: ids of items, sorted.
            sides: places in `SIDES`.
            seeds: 0 for the sides that have none.
            items: places in `names`.
            weights: weights.
        """
        self.metric, self.names, self.weights = metric, names, weights
        self.sides, self.seeds, self.items = sides, seeds, items
        self._order = np.lexsort((seeds, items, sides))
        ends = np.searchsorted(sides[self._order], range(len(SIDES) + 1)).tolist()
        self._rows = {side: self._order[ends[place] : ends[place + 1]] for place, side in enumerate(SIDES)}
        self._found: dict[str, tuple[Scores, Numbers] | None] = {}

    def __len__(self) -> int:
        return len(self.sides)

    def all_differ(self) -> bool:
        """Whether no two agree in side, seed and item."""
        same = [np.diff(array[self._order]) == 0 for array in (self.sides, self.seeds, self.items)]
        return not (same[0] & same[1] & same[2]).any()

    def scores(self, model: Side, values: Floats) -> Scores | None:
        """See `harness.records.items.scores`; `values` has an entry a row."""
        if model not in self._found:
            self._found[model] = self._matrix(model)
        if (found := self._found[model]) is None:
            return None
        like, rows = found
        return Scores(like.items, like.seeds, values[rows], like.weights)

    def _matrix(self, model: Side) -> tuple[Scores, Numbers] | None:
        """Of a model: all of its `Scores` but the values, and the rows that these are in, (items, seeds).

        Raises:
            ValueError: two seeds did not score the same items with the same weights.
        """
        rows = self._rows[model]
        if not len(rows):
            return None
        items = self.items[rows]
        number = int(np.searchsorted(items, items[0], side="right"))
        shape = (-1, number) if len(rows) % number == 0 else (1, -1)  # the second says that they are not the same
        rows = rows.reshape(shape)
        seeds, items, weights = self.seeds[rows], self.items[rows], self.weights[rows]
        if (items != items[:, :1]).any() or (seeds != seeds[0]).any():
            raise ValueError(f"the seeds of {model} did not score the same items in {self.metric!r}")
        if (weights != weights[:, :1]).any():
            raise ValueError(f"the seeds of {model} weigh the same item differently in {self.metric!r}")
        whole = len(items) == len(self.names)
        names = self.names if whole else tuple(map(self.names.__getitem__, items[:, 0].tolist()))
        own = weights[:, 0].copy()
        own.flags.writeable = False  # many cells have them
        return Scores(names, tuple(seeds[0].tolist()) if model in SEEDED else (None,), np.empty(0), own), rows


class Columns(ItemTable):
    """Items of one metric, as arrays; all of them would pass `check_items`."""

    def __init__(self, frame: ItemFrame, values: Floats) -> None:
        """`values`: the scores, one a row of the frame."""
        self.frame, self.values = frame, values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Any) -> Any:
        return list(self)[index]

    def __iter__(self) -> Iterator[Item]:
        frame = self.frame
        arrays = (frame.sides, frame.seeds, frame.items, self.values, frame.weights)
        for side, seed, item, value, weight in zip(*(array.tolist() for array in arrays), strict=True):
            model = SIDES[side]
            yield Item(model, frame.metric, seed if model in SEEDED else None, frame.names[item], value, weight)

    def scores(self, model: Side, metric: str) -> Scores | None:
        """See `harness.records.items.scores`."""
        return self.frame.scores(model, self.values) if metric == self.frame.metric else None
