"""The index of the leaderboard: it saves work, and nothing else of a build can tell that it is there."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from record_factory import make_cell, write_cell

from harness.errors import UsageError
from harness.records.cell_files import ITEMS, LOG, RECORD
from leaderboards import index as index_module
from leaderboards import load, ranking
from leaderboards.board import leaderboard
from leaderboards.cell_table import cells_of
from leaderboards.formats import FORMATS
from leaderboards.html.page import page
from leaderboards.index import Index
from leaderboards.load import load_results
from leaderboards.verify import verify

PUBLISHED = Path(__file__).parents[2] / "leaderboards" / "results"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Two locks under two attacks each."""
    for defense in ("dlr", "none"):
        for attack, recovery in (("full", 0.8), ("lora", 0.4)):
            write_cell(tmp_path / "out", make_cell(defense=defense, attack=attack, recovery=recovery))
    return tmp_path / "out"


class Work:
    """How often what the index saves was done."""

    def __init__(self) -> None:
        self.parsed = self.decoded = self.ranked = 0


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    """Counts from the first call on."""
    count = Work()

    def counted(module: Any, name: str, what: str) -> None:
        old = getattr(module, name)

        def new(*args: Any, **options: Any) -> Any:
            setattr(count, what, getattr(count, what) + 1)
            return old(*args, **options)

        monkeypatch.setattr(module, name, new)

    counted(load, "parse_record", "parsed")
    counted(load, "read_table", "decoded")
    counted(ranking, "_row", "ranked")
    return count


def done(work: Work) -> tuple[int, int, int]:
    """Records parsed strictly, files of items decoded, and rows ranked since the last time."""
    found = work.parsed, work.decoded, work.ranked
    work.parsed = work.decoded = work.ranked = 0
    return found


def test_a_second_build_does_nothing_again(out: Path, tmp_path: Path, work: Work) -> None:
    first = leaderboard(out, cache=tmp_path)
    assert done(work) == (4, 4, 2)
    assert leaderboard(out, cache=tmp_path) == first
    assert done(work) == (0, 0, 0)
    leaderboard(out, "html", cache=tmp_path)
    assert done(work) == (0, 0, 0)
    assert leaderboard(out) == first
    assert done(work) == (4, 4, 2)  # without a cache nothing is remembered


def test_a_new_cell_costs_itself_and_its_row(out: Path, tmp_path: Path, work: Work) -> None:
    leaderboard(out, cache=tmp_path)
    done(work)
    write_cell(out, make_cell(defense="dlr", attack="qlora"))
    assert leaderboard(out, cache=tmp_path) == leaderboard(out, cache=tmp_path)
    parsed, decoded, ranked = done(work)
    assert (parsed, ranked) == (1, 1)
    assert decoded == 3  # its own items and those of the two attacks that it stands beside


def test_other_code_other_libraries_or_another_processor_know_nothing(
    out: Path, tmp_path: Path, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaderboard(out, cache=tmp_path)
    monkeypatch.setattr(index_module, "environment", lambda: "0" * 24)
    done(work)
    leaderboard(out, cache=tmp_path)
    assert done(work) == (4, 4, 2)


def test_another_standard_suite_is_another_row(
    out: Path, tmp_path: Path, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaderboard(out, cache=tmp_path)
    monkeypatch.setattr(ranking, "suite_attacks", lambda task: ("lora",))
    done(work)
    assert leaderboard(out, cache=tmp_path) == leaderboard(out)
    assert done(work) == (4, 4 + 4, 4)  # with the cache the rows and what they need, without it all


@pytest.mark.parametrize("folder", ["tiny", "locks", "facts", "memory"])
def test_published_records_look_the_same_cold_warm_and_read_as_objects(folder: str, tmp_path: Path) -> None:
    objects = load_results(PUBLISHED / folder)  # every item an object, as `harness verify` reads them
    ranked = ranking.rank(objects.cells)
    assert all(isinstance(cell.items, list) for cell in objects.cells)
    for _ in ("cold", "warm"):
        with Index(tmp_path) as index:
            results = load_results(PUBLISHED / folder, utility=False, index=index)
            found = ranking.rank(results.cells, index)
        assert [row.model_dump_json() for row in found] == [row.model_dump_json() for row in ranked]
        assert [cell.record for cell in results.cells] == [cell.record for cell in objects.cells]
        assert cells_of(results.cells) == cells_of(objects.cells)
        assert page(results, rows=found) == page(objects, rows=ranked)


@pytest.mark.parametrize("kind", [*FORMATS, "html"])
def test_every_format_is_the_same_cold_and_warm(kind: str, out: Path, tmp_path: Path) -> None:
    (out / "cells" / "unfinished").mkdir()
    for cells in (False, True):
        plain = leaderboard(out, kind, cells=cells)
        assert [leaderboard(out, kind, cells=cells, cache=tmp_path) for _ in range(2)] == [plain, plain]


def outcome(out: Path, cache: Path | None) -> str:
    """What a build says, be it that there is nothing."""
    try:
        return leaderboard(out, "json", cache=cache) + leaderboard(out, cache=cache)
    except UsageError as error:
        return f"refused: {error}"


@settings(max_examples=25)
@given(st.sampled_from([RECORD, ITEMS, LOG]), st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_a_byte_that_changes_after_caching_is_seen(
    tmp_path_factory: pytest.TempPathFactory, name: str, share: float, flip: int
) -> None:
    """Whatever the dates and sizes say: same length, same times, another byte."""
    place = tmp_path_factory.mktemp("tampered")
    cells = [write_cell(place / "out", make_cell(attack=attack)) for attack in ("full", "lora")]
    good = outcome(place / "out", place)
    path = cells[0] / name
    old, times = path.read_bytes(), path.stat()
    at = int(share * len(old))
    path.write_bytes(old[:at] + bytes([old[at] ^ flip]) + old[at + 1 :])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_size == times.st_size
    strict = outcome(place / "out", None)
    assert outcome(place / "out", place) == strict != good
    assert verify(place / "out")
    path.write_bytes(old)
    assert outcome(place / "out", place) == good


def test_a_cell_under_another_name_or_behind_a_link_is_not_vouched_for(out: Path, tmp_path: Path) -> None:
    leaderboard(out, cache=tmp_path)
    first, second, *_ = sorted((out / "cells").iterdir())
    first.rename(first.with_name("0" * 16))
    second.rename(tmp_path / "elsewhere")
    second.symlink_to(tmp_path / "elsewhere")
    text = leaderboard(out, cache=tmp_path)
    assert text == leaderboard(out)
    assert "is of cell" in text
    assert "a link that leaves" in text
    third = sorted(out.glob("cells/*/items.parquet"))[-1]
    third.rename(tmp_path / "items")
    third.symlink_to(tmp_path / "items")
    assert leaderboard(out, cache=tmp_path) == leaderboard(out)


def test_files_that_change_between_reading_and_ranking_are_named(out: Path, tmp_path: Path) -> None:
    leaderboard(out, cells=True, cache=tmp_path)  # cells known, no row ranked
    with Index(tmp_path) as index:
        results = load_results(out, utility=False, index=index)
        path = sorted(out.glob("cells/*/items.parquet"))[0]
        path.write_bytes(path.read_bytes() + b"\0")
        with pytest.raises(UsageError, match="changed while it was read"):
            ranking.rank(results.cells, index)


def test_an_index_does_not_vouch_for_utility(out: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="attack's task alone"):
        load_results(out, index=Index(tmp_path))


def entries(tmp_path: Path) -> Path:
    """The one file of the index."""
    (path,) = (tmp_path / index_module.FOLDER).iterdir()
    return path


@pytest.mark.parametrize("harm", [
    "UPDATE entries SET value = replace(value, '0', '1')",
    "UPDATE entries SET value = substr(value, 1, length(value) / 2)",
    "UPDATE entries SET value = NULL", "UPDATE entries SET seal = x''", "UPDATE entries SET value = 'text'",
    "DROP TABLE entries", "CREATE TABLE other AS SELECT * FROM entries; DROP TABLE entries",
])  # fmt: skip
def test_entries_that_were_altered_are_not_believed(harm: str, out: Path, tmp_path: Path, work: Work) -> None:
    good = leaderboard(out, cache=tmp_path)
    database = sqlite3.connect(entries(tmp_path))
    database.executescript(harm)
    database.close()
    done(work)
    assert leaderboard(out, cache=tmp_path) == good
    assert done(work)[2] == 2
    assert leaderboard(out, cache=tmp_path) == good
    assert done(work) == (0, 0, 0)  # and they were mended


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.99])
def test_a_file_that_was_cut_short_is_made_anew(share: float, out: Path, tmp_path: Path, work: Work) -> None:
    good = leaderboard(out, cache=tmp_path)
    path = entries(tmp_path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert leaderboard(out, cache=tmp_path) == good
    done(work)
    assert leaderboard(out, cache=tmp_path) == good
    assert done(work) == (0, 0, 0)


def test_garbage_folders_and_places_that_take_no_files(out: Path, tmp_path: Path) -> None:
    good = leaderboard(out, cache=tmp_path)
    path = entries(tmp_path)
    path.write_bytes(b"no database " * 1000)
    assert leaderboard(out, cache=tmp_path) == good
    path.unlink()
    path.mkdir()
    assert leaderboard(out, cache=tmp_path) == good
    (tmp_path / "file").write_text("")
    assert leaderboard(out, cache=tmp_path / "file") == good


def test_a_build_that_fails_keeps_what_it_found(
    out: Path, tmp_path: Path, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr("leaderboards.formats.render", killed)
        with pytest.raises(KeyboardInterrupt):
            leaderboard(out, cache=tmp_path)
    done(work)
    leaderboard(out, cache=tmp_path)
    assert done(work) == (0, 0, 0)


def test_two_builds_write_side_by_side(out: Path, tmp_path: Path, work: Work) -> None:
    with Index(tmp_path) as one, Index(tmp_path) as other:
        one.put("a" * 64, b"1")
        other.put("b" * 64, b"2")
    with Index(tmp_path) as both:
        assert (both.get("a" * 64), both.get("b" * 64), both.get("c" * 64)) == (b"1", b"2", None)
