"""The cache: one builder under two processes, never a partial or altered entry, resumable work folder."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.cache import Cache, digest_of, is_whole


def write(entry: Path, work: Path) -> None:
    (entry / "sub").mkdir()
    (entry / "a.txt").write_text("alpha")
    (entry / "sub" / "b.txt").write_text("beta")


def test_a_hit_is_the_same_folder_and_builds_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    folder, hit = cache.get_or_make("k", {"x": 1}, write)
    again, second = cache.get_or_make("k", {"x": 1}, lambda entry, work: pytest.fail("built twice"))
    assert (hit, second, folder) == (False, True, again)
    assert cache.get_or_make("k", {"x": 2}, write)[0] != folder


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["a.txt", "sub/b.txt", "entry.json"]), cut=st.integers(0, 200))
def test_a_truncated_or_missing_file_is_rebuilt(tmp_path: Path, name: str, cut: int) -> None:
    cache = Cache(tmp_path)
    folder, _ = cache.get_or_make("k", {"x": 1}, write)
    victim = folder / name
    data = victim.read_bytes()
    victim.write_bytes(data[: min(cut, len(data) - 1)])
    assert not is_whole(folder)
    again, hit = cache.get_or_make("k", {"x": 1}, write)
    assert not hit
    assert is_whole(again)
    assert (again / "sub" / "b.txt").read_text() == "beta"


def test_a_builder_that_dies_leaves_no_entry_but_its_work(tmp_path: Path) -> None:
    def die(entry: Path, work: Path) -> None:
        (entry / "a.txt").write_text("half")
        (work / "checkpoint").write_text("step 7")
        raise KeyboardInterrupt

    def resume(entry: Path, work: Path) -> None:
        assert (work / "checkpoint").read_text() == "step 7"
        assert not list(entry.iterdir())
        write(entry, work)

    cache = Cache(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        cache.get_or_make("k", {"x": 1}, die)
    folder, hit = cache.get_or_make("k", {"x": 1}, resume)
    assert not hit
    assert is_whole(folder)
    assert not folder.with_suffix(".work").exists()


def _contend(root: str, log: str) -> None:
    def make(entry: Path, work: Path) -> None:
        with Path(log).open("a") as file:
            file.write("built\n")
        write(entry, work)

    Cache(Path(root)).get_or_make("k", {"x": 1}, make)


def test_several_processes_build_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    context = multiprocessing.get_context("fork")
    crowd = [context.Process(target=_contend, args=(str(tmp_path / "c"), str(log))) for _ in range(4)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
        assert one.exitcode == 0
    assert log.read_text() == "built\n"


def test_key_order_does_not_matter() -> None:
    assert digest_of({"a": 1, "b": [2.5, None]}) == digest_of({"b": [2.5, None], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 1.5})
