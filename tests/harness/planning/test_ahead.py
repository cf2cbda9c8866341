"""Pieces of a cell in other processes: the same record, failures recorded as if alone, and nobody left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cell_cases import QUICK
from processes import children, command_line

from harness.cache import Cache
from harness.cell import run_cell
from harness.planning.ahead import pieces
from harness.planning.pieces import make
from harness.progress import Progress
from harness.records.record import Record
from harness.spec import Spec, resolve
from harness.threads import ONE_THREAD_BELOW, threads_for, torch_threads, usable_cores
from harness.workshop import Workshop

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    """A quick cell of a random model."""
    from harness.testing import byte_tokenizer, random_llama

    folder = tmp_path / "model"
    random_llama().save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return resolve({**QUICK, "model": {"name": str(folder)}})


def command(spec: Spec, folder: Path, workers: int, **changes: Any) -> list[str]:
    folder.mkdir(exist_ok=True)
    config = folder / "spec.json"
    config.write_text(resolve({**spec.model_dump(mode="json"), **changes}).model_dump_json())
    return [sys.executable, "-m", "harness.cli.main", "run", "--config", str(config), "--json", "--out",
            str(folder / "out"), "--cache", str(folder / "cache"), "--workers", str(workers)]  # fmt: skip


def record(words: list[str]) -> tuple[Record, str]:
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    return Record.model_validate_json(done.stdout), done.stderr


def test_the_last_run_is_taken_first_and_the_references_before_any_attack(spec: Spec) -> None:
    found = [(piece.kind, piece.replicate) for piece in pieces(spec)]
    assert found == [("base", 0), ("reference", 1), ("reference", 0), ("attacked", 1), ("attacked", 0)]


def test_small_models_work_on_one_thread_whatever_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert usable_cores() == 7
    assert threads_for(ONE_THREAD_BELOW - 1) == 1
    assert threads_for(ONE_THREAD_BELOW) == 7
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert usable_cores() >= 1
    before = torch.get_num_threads()
    with torch_threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_an_entry_knows_its_threads(tmp_path: Path) -> None:
    cache, made = Cache(tmp_path), []
    for threads in (1, 2, 1):
        cache.get_or_make("runs", {"threads": threads}, lambda entry, work: made.append(entry))
    assert len(made) == 2


class Idle(Workshop):
    """A workshop that may not attack."""

    def _attack(self, *arguments: Any) -> None:
        raise AssertionError("this run should have been in the cache")


def test_a_cell_whose_pieces_are_made_attacks_no_more(spec: Spec, tmp_path: Path) -> None:
    place = {"cache": Cache(tmp_path / "cache"), "data_dir": None, "progress": Progress(quiet=True)}
    busy = Workshop(**place)
    for piece in pieces(spec):
        make(piece, busy)
    assert run_cell(spec, out=tmp_path / "out", workshop=Idle(**place)).status == "complete"


@pytest.mark.slow
def test_two_processes_give_the_record_that_one_gives(spec: Spec, tmp_path: Path) -> None:
    alone, _ = record(command(spec, tmp_path / "one", 1))
    together, log = record(command(spec, tmp_path / "two", 2))
    assert "leaked" not in log
    assert alone.status == together.status == "complete"
    assert alone.provenance.weights == together.provenance.weights
    assert (alone.score, alone.recovery, alone.utility) == (together.score, together.recovery, together.utility)
    items = [(tmp_path / name / "out" / "cells" / alone.id / "items.parquet").read_bytes() for name in ("one", "two")]
    assert items[0] == items[1]


MANY_PIECES = """
import multiprocessing.synchronize as locks, sys
from pathlib import Path
from harness.planning.ahead import Ahead
from harness.progress import Progress
from harness.spec import resolve
from harness.tracking import Reporting

if __name__ == "__main__":
    def refuse(*_, **__):
        raise AssertionError("a lock of the system's")
    locks.SemLock.__init__ = refuse
    ahead = Ahead(1, cache=Path(sys.argv[1]), data_dir=None, progress=Progress(quiet=True), reporting=Reporting())
    ahead.start()
    for seed in range(200):
        ahead.take(resolve({"seed": seed}))
    ahead.close()
    print("closed")
"""


@pytest.mark.slow
def test_pieces_that_nobody_took_keep_nobody_and_no_lock_is_the_systems(tmp_path: Path) -> None:
    """A queue's pipe holds 64 kB: what waited to go through it kept the command from ending, and its locks leaked."""
    script = tmp_path / "many.py"
    script.write_text(MANY_PIECES)
    done = subprocess.run([sys.executable, str(script), str(tmp_path / "cache")], check=False, capture_output=True,
                          text=True, timeout=120)  # fmt: skip
    assert done.stdout == "closed\n", done.stderr
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.slow
def test_what_fails_in_a_worker_is_recorded_as_if_alone(spec: Spec, tmp_path: Path) -> None:
    found, _ = record(command(spec, tmp_path / "small", 2, budget="memory=100KiB"))
    assert found.status == "out_of_memory"
    assert "102400" in (found.status_reason or "")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="processes are found in /proc")
def test_workers_end_with_a_killed_parent_and_the_next_run_finishes(spec: Spec, tmp_path: Path) -> None:
    words = command(spec, tmp_path / "killed", 2)
    parent = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (workers := spawned(parent.pid)):
        assert parent.poll() is None
        time.sleep(0.1)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline, f"left behind: {workers}"
        time.sleep(0.1)
    assert record(words)[0].status == "complete"


def spawned(pid: int) -> list[int]:
    """Python processes that multiprocessing started for `pid`, its resource tracker left out."""
    return [child for child in children(pid) if b"spawn_main" in command_line(child)]


@pytest.mark.parametrize("workers", ["0", "-1", "two"])
def test_a_wrong_number_of_workers_is_one_line(workers: str) -> None:
    environment = {**os.environ, "HARNESS_WORKERS": workers}
    done = subprocess.run([sys.executable, "-m", "harness.cli.main", "run"], check=False, capture_output=True,
                          text=True, env=environment)  # fmt: skip
    assert done.returncode == 2
    assert f"--workers {workers}: expected a whole number from 1" in done.stderr.splitlines()[-1]
