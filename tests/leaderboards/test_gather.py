"""Groups read and ranked by processes side by side: the same as by one, whatever becomes of a process or of a file."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_factory import make_cell, write_cell

from harness.errors import UsageError
from harness.numbers.robustness import Cell
from harness.records.merge import merge
from leaderboards import groups
from leaderboards.board import leaderboard
from leaderboards.gather import Gathered, gather
from leaderboards.groups import Look, group_of, quick_group
from leaderboards.html.page import page, page_of
from leaderboards.html.pieces import part_of
from leaderboards.index import Index
from leaderboards.load import load_results
from leaderboards.ranking import rank
from leaderboards.verify import verify

PUBLISHED = Path(__file__).parents[2] / "leaderboards" / "results"
FIRST = os.getpid()
KINDS = ("table", "json", "html")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models by three locks by two attacks, and cells with everything wrong that there can be."""
    folder = tmp_path_factory.mktemp("gather")
    for model in ("a", "b", "c"):
        for lock in ("dlr", "none", {"name": "dlr", "depth": 3}):
            for attack in ("full", "lora"):
                write_cell(folder, make_cell(model=model, defense=lock, attack=attack))
    cells = sorted((folder / "cells").iterdir())
    shutil.copytree(cells[0], folder / "cells" / ("0" * 16))  # of another id
    (folder / "cells" / "unfinished").mkdir()
    (folder / "cells" / "elsewhere").symlink_to(PUBLISHED / "tiny")
    for name, text in {"empty": "", "list": "[]", "half": (cells[1] / "record.json").read_text()[:900],
                       "spec": '{"spec": 3}', "surrogate": '{"spec": {"model": "\\ud800"}}'}.items():  # fmt: skip
        (folder / "cells" / name).mkdir()
        (folder / "cells" / name / "record.json").write_text(text)
    (cells[2] / "log.txt").write_text("another")
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_processes_gives_the_same(out: Path, kind: str, tmp_path: Path) -> None:
    one = leaderboard(out, kind)
    assert all(leaderboard(out, kind, processes=number) == one for number in (2, 5))
    cold, warm = (leaderboard(out, kind, processes=2, cache=tmp_path) for _ in range(2))
    assert cold == warm == one


@pytest.mark.parametrize("folder", ["tiny", "locks", "memory"])
def test_groups_are_what_reading_all_at_once_finds(folder: str) -> None:
    results = load_results(PUBLISHED / folder, utility=False)
    found = gather(Look(PUBLISHED / folder, processes=2), len)
    assert found.rows == rank(results.cells)
    assert sum(found.shown) == len(results.cells)
    assert found.skipped == results.skipped


def test_what_is_skipped_is_what_reading_all_at_once_skips(out: Path) -> None:
    results = load_results(out, utility=False)
    found = gather(Look(out, processes=2), len)
    assert [(one.folder, one.reason) for one in found.skipped] == [(one.folder, one.reason) for one in results.skipped]
    assert len(found.skipped) == 9
    assert found.rows == rank(results.cells)


def resolved(text: str) -> Any:
    """The data of a page with values in the place of their numbers."""
    data = json.loads(re.findall(r'id="data">(.*?)</script>', text, re.DOTALL)[0])
    pool = data.pop("pool")
    for column in [*data["board"], *data["cells"]]:
        column["text"] = [pool[place] for place in column["text"]]
    for lock in data["locks"]:
        lock["layers"] = lock["layers"] and pool[lock["layers"]]
    for cell in data["details"]:
        for key in set(cell) - {"flops", "memory", "rate"}:
            places = cell[key]
            cell[key] = [place if place is None else pool[place] for place in places] if isinstance(places, list) \
                else pool[places]  # fmt: skip
    return data


@pytest.mark.parametrize("folder", ["tiny", "locks", "facts"])
def test_a_page_says_the_same_however_its_cells_are_parted(folder: str) -> None:
    results = load_results(PUBLISHED / folder, utility=False)
    rows = rank(results.cells)
    parts = [part_of(results.cells[start::3]) for start in range(3)]
    assert resolved(page_of(parts, rows, [])) == resolved(page(results, rows=rows))
    assert resolved(leaderboard(PUBLISHED / folder, "html", processes=2)) == resolved(page(results, rows=rows))


def dies_in_a_copy(cells: Sequence[Cell]) -> int:
    if os.getpid() != FIRST:
        os._exit(1)
    return len(cells)


def test_a_process_that_is_killed_loses_nothing(out: Path) -> None:
    whole, found = gather(Look(out), len), gather(Look(out, processes=2), dies_in_a_copy)
    assert found == whole


def test_a_look_that_is_killed_is_taken_again(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Look(out).jobs()
    monkeypatch.setattr(groups, "_send", lambda *_: os._exit(1))
    assert Look(out, processes=2).jobs() == expected


def refuses_in_a_copy(cells: Sequence[Cell]) -> int:
    raise UsageError(f"cell {cells[0].record.id} is refused")


def test_an_error_in_a_process_is_the_error_here(out: Path) -> None:
    with pytest.raises(UsageError, match="is refused"):
        gather(Look(out, processes=2), refuses_in_a_copy)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_folder_without_one_record_to_read_says_why(tmp_path: Path, processes: int) -> None:
    cell = write_cell(tmp_path, make_cell())
    raw = json.loads((cell / "record.json").read_text())
    (cell / "record.json").write_text(json.dumps({**raw, "schema_version": 99}))
    with pytest.raises(UsageError, match="schema version 99"):
        leaderboard(tmp_path, processes=processes)
    with pytest.raises(UsageError, match="holds no results"):
        leaderboard(tmp_path / "cells", processes=processes)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("wrong", ["", "[another]"])
def test_a_record_that_is_written_between_look_and_reading_counts(
    out: Path, processes: int, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A matrix runs on while its board is built: a cell that was not there, or was of another group, is taken again."""
    look, expected = Look(out, processes=processes), gather(Look(out), len)
    first, *others = [job for job in look.jobs() if job[0]]
    none = [job for job in look.jobs() if not job[0]]
    group, found = first
    jobs = [(group, found[1:]), (wrong, found[:1]), *others, *none] if wrong else \
        [(group, found[1:]), *others, *[("", [*places, found[0]]) for _, places in none]]  # fmt: skip
    monkeypatch.setattr(look, "jobs", lambda: jobs)
    assert gather(look, len) == expected


class Refusing(ProcessPoolExecutor):
    """A pool whose third piece of work finds no process."""

    def submit(self, *given: Any, **named: Any) -> Any:
        self.asked = getattr(self, "asked", 0) + 1
        if self.asked == 3:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return super().submit(*given, **named)


def test_where_no_process_can_be_made_one_does_it_all(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, before = gather(Look(out), len), multiprocessing.active_children()

    def no_context(_: str) -> Any:
        raise OSError(38, "Function not implemented")

    with monkeypatch.context() as patched:
        patched.setattr("leaderboards.gather.ProcessPoolExecutor", Refusing)
        assert gather(Look(out, processes=2), len) == expected
    with monkeypatch.context() as patched:
        patched.setattr("multiprocessing.get_context", no_context)
        assert gather(Look(out, processes=2), len) == expected
    for child in set(multiprocessing.active_children()) - set(before):
        child.join(10)
        assert not child.is_alive()


SLEEPER = """
import os, sys, time
from pathlib import Path
from leaderboards.gather import gather
from leaderboards.groups import Look
def show(cells):
    Path(sys.argv[2], str(os.getpid())).touch()
    time.sleep(60)
gather(Look(Path(sys.argv[1]), processes=2), show)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="processes are copied on Linux alone")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_build_that_is_killed_leaves_nobody_behind(out: Path, tmp_path: Path, how: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, "-c", SLEEPER, str(out), str(tmp_path)])
    until(lambda: len(list(tmp_path.iterdir())) == 2)
    process.send_signal(how)
    process.wait(30)
    until(lambda: not any(Path("/proc", child.name).exists() for child in tmp_path.iterdir()))


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_what_processes_learn_is_kept(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def learnt(processes: int) -> Gathered[int]:
        with Index(tmp_path) as index:
            return gather(Look(out, processes=processes), len, index=index)

    first = learnt(2)
    monkeypatch.setattr("leaderboards.ranking._row", pytest.fail)
    assert learnt(1) == first


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("fresh", [True, False])
def test_cells_that_a_merge_took_out_are_named_everywhere(tmp_path: Path, processes: int, fresh: bool) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    target = tmp_path / "all" if fresh else one
    for folder, recovery in ((one, 0.2), (other, 0.7)):
        clash = write_cell(folder, make_cell(attack="full", recovery=recovery)).name
        write_cell(folder, make_cell(attack="lora"))
    merge([one, other], target)
    for kind in ("table", "markdown", "latex", "html"):
        text = leaderboard(target, kind, processes=processes)
        assert clash in text
        assert "a clash of merged folders" in text
    (mismatch,) = verify(target)
    assert clash in str(mismatch)
    assert "a clash" in str(mismatch)
    assert [one.folder for one in load_results(target).skipped] == [clash]
    shutil.rmtree(target / "clashes")
    shutil.rmtree(target / "cells" / clash, ignore_errors=True)
    assert not verify(target)


plain = st.none() | st.booleans() | st.sampled_from([0, 1, -0.0, 1.0, 1e-05, 1e-5, 1e16, 10**16, "1", "\ud800", "é"])
specs = st.fixed_dictionaries({"model": plain, "defense": st.dictionaries(st.sampled_from("ab"), plain)},
                              optional={"own": plain, "corpus": plain})  # fmt: skip


@given(specs, specs)
def test_the_quick_group_tells_apart_what_the_group_tells_apart(one: Any, other: Any) -> None:
    turned = {key: one[key] for key in reversed(one)}
    assert quick_group(turned) == quick_group(one)
    assert (quick_group(one) == quick_group(other)) == (group_of(one) == group_of(other))
