from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.items import Item, check_items, read_items, scores, weighted_mean, write_items

finite = st.floats(-1e6, 1e6)
item = st.builds(
    lambda model, metric, seed, name, score, weight: Item(
        model, metric, seed if model in ("attacked", "reference") else None, name, score, weight
    ),
    st.sampled_from(["base", "locked", "attacked", "reference"]),
    st.text(max_size=5), st.integers(-(2**63), 2**63 - 1), st.text(max_size=8), finite, st.floats(1e-6, 1e6),
)  # fmt: skip
unique_items = st.lists(item, max_size=20, unique_by=lambda row: (row.model, row.metric, row.seed, row.item))


@given(unique_items)
def test_items_survive_the_file(tmp_path_factory: pytest.TempPathFactory, rows: list[Item]) -> None:
    path = tmp_path_factory.mktemp("items") / "items.parquet"
    write_items(path, rows)
    assert read_items(path) == rows


@pytest.mark.parametrize("bad", [
    Item("base", "m", None, "a", math.nan), Item("base", "m", None, "a", math.inf),
    Item("base", "m", None, "a", 1.0, 0.0), Item("base", "m", None, "a", 1.0, math.nan),
    Item("base", "m", 3, "a", 1.0), Item("attacked", "m", None, "a", 1.0),
    Item("other", "m", None, "a", 1.0),  # type: ignore[arg-type]
])  # fmt: skip
def test_items_that_cannot_be_trusted_are_refused(tmp_path: Path, bad: Item) -> None:
    with pytest.raises(ValueError, match=r"item|model"):
        write_items(tmp_path / "items.parquet", [bad])
    assert list(tmp_path.iterdir()) == []


def test_an_item_scored_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="scored twice"):
        check_items([Item("base", "m", None, "a", 1.0), Item("base", "m", None, "a", 0.0)])


def test_every_truncation_of_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    write_items(path, [Item("base", "m", None, str(i), float(i)) for i in range(5)])
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(UsageError, match="not a whole file of items"):
            read_items(path)


def test_scores_are_matrices_in_a_fixed_order() -> None:
    rows = [Item("attacked", "m", seed, name, seed + ord(name), 2.0) for name in "ba" for seed in (9, 1)]
    found = scores([*rows, Item("base", "m", None, "a", 5.0)], "attacked", "m")
    assert found is not None
    assert (found.items, found.seeds) == (("a", "b"), (1, 9))
    np.testing.assert_array_equal(found.values, [[98, 106], [99, 107]])
    assert scores(rows, "locked", "m") is None
    with pytest.raises(ValueError, match="same items"):
        scores(rows[:3], "attacked", "m")


@given(st.lists(st.tuples(finite, st.floats(0.1, 100)), min_size=1, max_size=20))
def test_weighted_mean_lies_among_the_scores(pairs: list[tuple[float, float]]) -> None:
    mean = weighted_mean(Item("base", "m", None, str(i), s, w) for i, (s, w) in enumerate(pairs))
    values = [s for s, _ in pairs]
    assert min(values) - 1e-6 <= mean <= max(values) + 1e-6


def test_no_items_have_no_mean() -> None:
    with pytest.raises(ValueError, match="no items"):
        weighted_mean([])
