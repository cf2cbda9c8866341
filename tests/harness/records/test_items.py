from __future__ import annotations

import math
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.records import item_files, parquet_footer
from harness.records.items import (
    COLUMNS,
    SIDES,
    Item,
    ItemTable,
    check_items,
    read_items,
    read_table,
    scores,
    weighted_mean,
    write_items,
)
from harness.records.plain_page import plain_page

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


names = st.sampled_from(["a", "b", "c", "", "\u00e9", "x" * 2001])
stranger_rows = st.lists(st.tuples(
    st.sampled_from(["base", "locked", "attacked", "reference"]) | st.just("nobody"),
    st.sampled_from(["m", "m", "m", "n"]), st.none() | st.sampled_from([0, 1, -1, 2**63 - 1]), names | st.none(),
    st.sampled_from([0.0, -0.0, 1.5]) | st.sampled_from([1e31, math.nan, None]), st.sampled_from([1.0, 2.0, 0.0, 1e31]),
), max_size=6)  # fmt: skip
good_rows = st.builds(
    lambda ids, seeds, score: [
        (model, metric, seed, item, score + index, 1.0 + index)
        for model in ("base", "attacked", "reference") for metric in ("m", "n")
        for seed in ([None] if model == "base" else seeds) for index, item in enumerate(ids)
    ],
    st.lists(st.text(max_size=4), max_size=4, unique=True), st.lists(st.integers(-9, 9), max_size=3, unique=True),
    finite,
)  # fmt: skip


@given(stranger_rows | good_rows | good_rows.map(lambda rows: rows[::-1]) | good_rows.map(lambda rows: rows[1:]),
       st.sampled_from([None, 2]))  # fmt: skip
def test_arrays_say_what_objects_say(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Any, ...]], group: int | None
) -> None:
    """Of any file: the same items, the same scores, or the same refusal."""
    path = tmp_path_factory.mktemp("items") / "items.parquet"
    kinds = (pa.string(), pa.string(), pa.int64(), pa.string(), pa.float64(), pa.float64())
    columns = [pa.array([row[index] for row in rows], kind) for index, kind in enumerate(kinds)]
    pq.write_table(pa.table(columns, names=COLUMNS), path, row_group_size=group)

    def said(read: Any) -> Any:
        try:
            items = read(path, "m")
        except UsageError as error:
            return str(error)
        found = []
        for side in SIDES:
            try:
                model = scores(items, side, "m")
            except ValueError as error:
                found.append(str(error))
                continue
            found.append(model and (model.items, model.seeds, model.values.tolist(), model.weights.tolist()))
        return list(items), len(items), items[:1], found

    assert repr(said(read_table)) == repr(said(read_items))


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


def test_damaged_bytes_are_refused_or_read_alike(tmp_path: Path) -> None:
    """A page that points beyond its dictionary was an IndexError once, or another name. (The footer: see `_table`.)"""
    path, refused = tmp_path / "items.parquet", 0
    write_items(path, [Item("attacked", "m", seed, name, 1.0) for seed in (1, 2) for name in "abcde"])
    whole = path.read_bytes()
    footer = int.from_bytes(whole[-8:-4], "little") + 8
    for at in range(0, len(whole) - footer, 2):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (78 if at % 4 else 255)]) + whole[at + 1 :])
        try:
            found: Any = list(read_table(path, "m"))
        except UsageError:
            found = None
            refused += 1
        try:
            assert repr(read_items(path, "m")) == repr(found)
        except UsageError:
            assert found is None
    assert refused > 100


@pytest.fixture
def forgotten() -> None:
    """Nothing is known of files that were read before."""
    item_files._frames.cache_clear()
    parquet_footer._shapes.cache_clear()


def frame(path: Path) -> Any:
    """What a file has beside its scores; the first reading of a shape of footers keeps none, so it is read twice."""
    read_table(path, "m")
    return read_table(path, "m").frame  # type: ignore[attr-defined]


def both(path: Path) -> tuple[str, str]:
    """What `read_table` and `read_items` say of a file; a refusal is one, whatever its words."""

    def said(read: Any) -> str:
        try:
            return repr(list(read(path, "m")))
        except UsageError:
            return "refused"

    return said(read_table), said(read_items)


def write_as_before(path: Path, items: list[Item]) -> None:
    """As files of items were written once: all columns with dictionaries, a footer with the schema and statistics."""
    write_items(path, items)
    pq.write_table(pq.read_table(path), path)


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize("write", [write_items, write_as_before])
def test_whatever_byte_is_changed_a_frame_that_is_known_tells_nothing_else(tmp_path: Path, write: Any) -> None:
    """The scores of a file are put into the frame of one read before only where all else follows from equal bytes."""
    path = tmp_path / "items.parquet"
    seeded = [("base", None), ("attacked", 1), ("attacked", 2)]
    write(path, [Item(side, "m", seed, name, index / 8, 2.0) for side, seed in seeded  # type: ignore[arg-type]
                 for index, name in enumerate("abc")])  # fmt: skip
    whole = path.read_bytes()
    known = frame(path)
    assert frame(path) is known
    outcomes = set()
    for at in range(4, len(whole) - 8):
        for flip in ((1,), (2, 128), (64,))[at % 3]:
            path.write_bytes(whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])
            table, items = both(path)
            assert table == items, (at, flip)
            outcomes.add(items)
    least = 50 if write is write_as_before else 40  # scores, weights, names, seeds and models, changed and read
    assert len(outcomes) > least


@settings(max_examples=15)
@given(st.lists(finite, min_size=6, max_size=6), st.lists(finite, min_size=6, max_size=6))
def test_files_that_differ_in_scores_share_their_frame(
    tmp_path_factory: pytest.TempPathFactory, first: list[float], second: list[float]
) -> None:
    """Another weight, seed or name is another frame."""
    path = tmp_path_factory.mktemp("items") / "items.parquet"

    def written(values: list[float], seed: int = 6, name: str = "c", weight: float = 1.0) -> Any:
        rows = [Item("reference", "m", seed, name, value, weight)
                for (seed, name), value in zip([(s, n) for s in (5, seed) for n in ("a", "b", name)], values,
                                               strict=True)]  # fmt: skip
        write_items(path, rows)
        found = frame(path)
        assert list(read_table(path, "m")) == rows
        assert repr(scores(read_table(path, "m"), "reference", "m")) == repr(scores(rows, "reference", "m"))
        return found

    known = written(first)
    assert written(second) is known
    for other in ({"seed": 7}, {"name": "d"}, {"weight": 2.0}):
        assert written(second, **other) is not known  # type: ignore[arg-type]


@pytest.mark.usefixtures("forgotten")
def test_no_frame_is_kept_of_another_writer_or_of_a_file_with_much_beside_its_items(tmp_path: Path) -> None:
    """Arrow reads bytes behind a column's end where `created_by` is an old parquet-mr, whatever else a footer says."""
    path, old = tmp_path / "items.parquet", b"parquet-mr version 1.2.8 (build parquet-cpp-arrow version )"
    rows = [Item("attacked", "m", 1, name, 1.0) for name in "abcde"]
    write_items(path, rows)
    whole = path.read_bytes()
    length = int.from_bytes(whole[-8:-4], "little")
    footer, ours = whole[-8 - length : -8], f"parquet-cpp-arrow version {pa.__version__}".encode()
    assert footer.count(ours) == 1
    renamed = footer.replace(bytes([len(ours)]) + ours, bytes([len(old)]) + old)
    path.write_bytes(whole[: -8 - length] + renamed + len(renamed).to_bytes(4, "little") + b"PAR1")
    assert frame(path) is not frame(path)
    path.write_bytes(whole[: -8 - length] + b"\0" * (1 << 18) + whole[-8 - length :])
    assert frame(path) is not frame(path)
    path.write_bytes(whole)
    assert frame(path) is frame(path)


def columns_of(**changes: Any) -> dict[str, Any]:
    """The columns of one good row, some of them changed."""
    row = {"model": pa.array(["base"]), "metric": pa.array(["m"]), "seed": pa.array([None], pa.int64()),
           "item": pa.array(["a"]), "score": pa.array([1.0]), "weight": pa.array([1.0])}  # fmt: skip
    return {**row, **changes}


@pytest.mark.parametrize(("columns", "words"), [
    (columns_of(extra=pa.array([1])), "its columns are"),
    (columns_of(score=pa.array(["1.0"])), "score of string"),
    (columns_of(score=pa.array([1])), "score of int64"),
    (columns_of(item=pa.array([[1]])), "field 3 of type 12"),
    (columns_of(item=pa.array([None], pa.string())), "not a whole file of items"),
    (columns_of(score=pa.array([None], pa.float64())), "not a whole file of items"),
    (columns_of(model=pa.array(["nobody"])), "unknown model"),
    (columns_of(item=pa.array(["x" * 3000])), "more than 2000 characters"),
    (columns_of(score=pa.array([1e300])), "score 1e"),
    (columns_of(weight=pa.array([5e-324])), "weight 5e"),
])  # fmt: skip
def test_a_stranger_s_table_is_refused(tmp_path: Path, columns: dict[str, Any], words: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "items.parquet")
    with pytest.raises(UsageError, match=words) as caught:
        read_items(tmp_path / "items.parquet")
    assert len(str(caught.value)) < 4000
    assert "\n" not in str(caught.value)


def test_small_files_that_expand_are_refused_before_they_do(tmp_path: Path) -> None:
    """A column of one value is a few bytes a million rows; long texts that rows share are one text in memory."""
    path = tmp_path / "items.parquet"

    def write(rows: int, item: str = "a", **options: Any) -> None:
        values = {"model": "base", "metric": "m", "item": item, "score": 1.0, "weight": 1.0}
        first = pa.array(np.zeros(rows, np.int32))
        made = {name: pa.DictionaryArray.from_arrays(first, pa.array([value])) if isinstance(value, str)
                else pa.array(np.full(rows, value)) for name, value in values.items()}  # fmt: skip
        table = columns_of(**made, seed=pa.nulls(rows, pa.int64()))
        pq.write_table(pa.table(table), path, store_schema=False, **options)

    write(2_000_001)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(UsageError, match="2000001 rows"):
        read_items(path)
    write(10, compression="zstd")
    with pytest.raises(UsageError, match="compressed by something else"):
        read_items(path)
    write(300_000, item="x" * 500_000)  # as plain rows 150 GB
    with pytest.raises(UsageError, match="more than 2000 characters"):
        read_items(path)
    path.write_bytes(b"PAR1" + b"\0" * (65 << 20))
    with pytest.raises(UsageError, match="larger than"):
        read_items(path)


def test_sound_items_come_as_arrays(tmp_path: Path) -> None:
    rows = [Item("attacked", "m", seed, name, 1.0) for seed in (2**63 - 1, -(2**63)) for name in "ba"]
    write_items(tmp_path / "items.parquet", [*rows, Item("base", "other", None, "a", 1.0)])
    table = read_table(tmp_path / "items.parquet", "m")
    assert isinstance(table, ItemTable)
    assert list(table) == rows
    found = table.scores("attacked", "m")
    assert found is not None
    assert found.seeds == (-(2**63), 2**63 - 1)
    assert table.scores("base", "other") is None


def test_items_behind_a_link_are_refused(tmp_path: Path) -> None:
    write_items(tmp_path / "elsewhere", [Item("base", "m", None, "a", 1.0)])
    (tmp_path / "items.parquet").symlink_to("elsewhere")
    with pytest.raises(UsageError, match="a link"):
        read_items(tmp_path / "items.parquet")


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


def test_reading_a_column_of_numbers_imports_no_pandas(tmp_path: Path) -> None:
    write_items(tmp_path / "items.parquet", [Item("base", "m", None, name, 1.0) for name in "ab"])
    code = ("import sys; from pathlib import Path; from harness.records.items import read_table; "
            f"[len(read_table(Path({str(tmp_path / 'items.parquet')!r}), 'm')) for _ in range(2)]; "
            "sys.exit('pandas' in sys.modules)")  # fmt: skip
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize("write", [write_items, write_as_before])
def test_scores_of_ours_are_read_without_arrow_once_their_frame_is_known(
    tmp_path: Path, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, asked = tmp_path / "items.parquet", []

    def written(seed: int) -> list[Item]:
        rng = random.Random(seed)
        rows = [Item(side, metric, None, str(n), rng.choice([0.0, 1.0, rng.gauss(0, 10)]))
                for side in ("base", "locked") for metric in ("m", "utility/x") for n in range(40)]  # fmt: skip
        write(path, rows)
        return [row for row in rows if row.metric == "m"]

    for seed in range(2):
        written(seed)
        read_table(path, "m")
    monkeypatch.setattr(item_files, "_file", lambda *given, read=item_files._file: asked.append(given) or read(*given))
    for seed in range(9):
        rows = written(seed)
        assert list(read_table(path, "m")) == rows
    assert bool(asked) == (write is write_as_before)


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize("options", [
    {}, {"column_encoding": {"score": "BYTE_STREAM_SPLIT"}}, {"compression": "NONE"}, {"data_page_version": "2.0"},
    {"write_batch_size": 4, "data_page_size": 8}, {"row_group_size": 20}, {"write_statistics": True},
], ids=str)  # fmt: skip
def test_scores_of_other_writers_are_never_taken_for_what_a_first_file_made_of_them(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    """The first files are a stranger's too: one whose scores are all alike fits several encodings."""
    path, rng = tmp_path / "items.parquet", np.random.default_rng(0)
    (alike,) = np.frombuffer(b"\x3f" * 8, np.float64)
    pieces = np.frombuffer(rng.choice(np.array([0x3F, 0x40], np.uint8), 640).tobytes(), np.float64)
    for values in ([alike] * 80, [alike] * 80, list(pieces), list(rng.normal(size=80)), [alike] * 80):
        write_items(path, [Item(side, "m", None, str(n), values[n + 40 * place])
                           for place, side in enumerate(("base", "locked")) for n in range(40)])  # type: ignore[arg-type]  # fmt: skip
        table = pq.read_table(path)
        dictionaries = [name for name in COLUMNS if name != "score"]
        pq.write_table(table, path, **{"use_dictionary": dictionaries, "store_schema": False, "write_statistics": False}
                       | options)  # fmt: skip
        assert list(read_table(path, "m")) == read_items(path, "m")


@pytest.mark.usefixtures("forgotten")
def test_a_page_with_a_number_too_many_is_read_as_arrow_reads_it(tmp_path: Path) -> None:
    """The page says how many numbers it has, and the bytes are more: Arrow takes the first ones."""
    write_items(tmp_path / "items.parquet", [Item("base", "m", None, f"{n:02}", 0.5) for n in range(30)])
    data = (tmp_path / "items.parquet").read_bytes()
    claims = [parquet_footer.check_footer(data, COLUMNS, rows=99, size=1 << 20) for _ in range(2)][1]
    assert claims is not None
    chunk = claims.chunk(data, 4)
    page = plain_page(chunk, 30)
    assert page is not None
    for size in (page.size - 8, page.size + 8):
        head = chunk.replace(thrift(page.size), thrift(size), 1)
        assert head != chunk
        assert plain_page(head, 30) is None


def thrift(number: int) -> bytes:
    """A positive number in two bytes."""
    return bytes([number << 1 & 127 | 128, number << 1 >> 7])


def test_a_page_of_numbers_is_known_by_all_but_its_numbers(tmp_path: Path) -> None:
    def chunk(values: list[float | None], **options: Any) -> bytes:
        table = pa.table({"score": pa.array(values, pa.float64())})
        pq.write_table(table, tmp_path / "a.parquet", **{"use_dictionary": False, "write_statistics": False, **options})
        data = (tmp_path / "a.parquet").read_bytes()
        column = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(0).column(0)
        first = column.dictionary_page_offset or column.data_page_offset
        return data[first : first + column.total_compressed_size]

    first, others = [0.5] * 30, [float(n % 3) for n in range(30)]
    page = plain_page(chunk(first), 30)
    assert page is not None
    assert page.values(chunk(others)).tolist() == others  # type: ignore[union-attr]
    assert plain_page(chunk(first), 29) is None
    for options in ({"use_dictionary": True}, {"write_statistics": True}, {"compression": "NONE"},
                    {"compression": "ZSTD"}, {"data_page_version": "2.0"}, {"use_byte_stream_split": True},
                    {"data_page_size": 8, "write_batch_size": 4}, {"write_page_checksum": True}):  # fmt: skip
        assert page.values(chunk(others, **options)) is None, options
        assert plain_page(chunk(others, **options), 30) is None, options
    assert plain_page(chunk([None, *others]), 31) is None
    assert page.values(chunk(others + others)) is None
    whole = chunk(others)
    for cut in range(len(whole)):
        assert page.values(whole[:cut]) is None
    assert page.values(whole + b"\0") is None
