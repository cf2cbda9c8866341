"""Cells in processes of their own: what dies or hangs there costs its cell and nothing else; two commands share."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from cheap_cells import cheap_grid, cheap_model, environment, matrix_command
from processes import alive, descendants

from harness.executors.base import Place
from harness.executors.local import LocalExecutor
from harness.records.record import Record
from harness.records.record_files import read_record


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cheap_model(tmp_path_factory.mktemp("cheap") / "model")


def records(folder: Path, out: str = "out") -> list[Record]:
    """Every whole record, in the order of the attacks' numbers."""
    found = [read_record(path) for path in (folder / out / "cells").glob("*")]
    return sorted((record for record in found if record is not None), key=lambda r: r.spec["attack"]["number"])  # type: ignore[index,call-overload]


def run(command: list[str], status: int) -> str:
    """What the command says on stderr."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment())
    assert done.returncode == status, done.stderr
    return done.stderr


def test_what_goes_wrong_in_a_cell_stays_in_it(model: Path, tmp_path: Path) -> None:
    faults = ["", "raise", "hang", "die", "die_once", "", "leak"]
    notes = tmp_path / "notes"
    grid = cheap_grid(model, [{"number": n, "fault": fault, "notes": str(notes)} for n, fault in enumerate(faults)])
    command = matrix_command(grid, tmp_path, "--workers", "3", "--timeout", "30", "--retries", "1", "--json")
    said = run(command, 1)
    assert "killed by SIGKILL" in said
    found = records(tmp_path)
    assert [record.status for record in found] == ["complete", "failed", "failed", "failed", "complete", "complete",
                                                "out_of_memory"]  # fmt: skip
    reasons = [record.status_reason or "" for record in found]
    assert reasons[1] == "RuntimeError: a plug-in's own bug"
    assert "did not end within 30 s (--timeout)" in reasons[2]
    assert "killed by SIGKILL" in reasons[3]
    assert "(2 times)" in reasons[3]
    made = Counter(notes.read_text().splitlines())

    grid["attacks"] = [attack | {"fault": ""} for attack in grid["attacks"][:1]] + grid["attacks"][4:6]
    assert "3 cells are complete" in run(matrix_command(grid, tmp_path, "--workers", "3"), 0)
    assert Counter(notes.read_text().splitlines()) == made  # nothing that was finished is done again
    assert records(tmp_path)[0] == found[0]


def test_a_full_disk_ends_the_command_and_loses_nothing(model: Path, tmp_path: Path) -> None:
    grid = cheap_grid(model, [{"number": 0}, {"number": 1, "fault": "full"}, {"number": 2}])
    said = run(matrix_command(grid, tmp_path, "--workers", "1"), 2)
    assert "No space left" in said
    assert "what is finished is kept" in said
    assert [record.status for record in records(tmp_path)] == ["complete"]


def test_a_killed_command_leaves_nobody_behind_and_two_share_what_is_left(model: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    attacks = [{"number": n, "sleep": 0.3, "notes": str(notes)} for n in range(8)]
    command = matrix_command(cheap_grid(model, attacks), tmp_path, "--workers", "2")
    first = start(command)
    while len(records(tmp_path)) < 2:
        assert first.poll() is None
        time.sleep(0.05)
    family = descendants(first.pid)
    first.send_signal(signal.SIGKILL)
    first.wait()
    deadline = time.monotonic() + 60
    while any(alive(pid) for pid in family):
        assert time.monotonic() < deadline, f"left behind: {family}"
        time.sleep(0.05)
    kept = {
        record.id: (tmp_path / "out/cells" / record.id / "record.json").read_bytes() for record in records(tmp_path)
    }
    pair = [start(command), start(command)]
    assert [one.wait() for one in pair] == [0, 0]
    assert [record.status for record in records(tmp_path)] == ["complete"] * 8
    for name, content in kept.items():
        assert (tmp_path / "out/cells" / name / "record.json").read_bytes() == content
    made = Counter(notes.read_text().splitlines())
    assert len(made) == 16
    assert sum(made.values()) <= 18  # at most what the kill cut off in two processes is done again


def start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())


ASKED = """
import importlib, sys
import torch
asked = []
for name in ("is_available", "is_initialized", "_lazy_init", "get_device_capability", "get_device_properties"):
    def told(*args, name=name, real=getattr(torch.cuda, name), **options):
        asked.append(name)
        return real(*args, **options)
    setattr(torch.cuda, name, told)
from harness.executors.local import DEVICE_FREE
for name in DEVICE_FREE:
    importlib.import_module(name)
print(asked, "bitsandbytes" in sys.modules, "deepspeed" in sys.modules)
"""


def test_the_server_asks_no_gpu_anything_before_it_forks() -> None:
    """CUDA does not work in a process that is forked from one that has started its driver."""
    done = subprocess.run([sys.executable, "-c", ASKED], check=True, capture_output=True, text=True, env=environment())
    assert done.stdout.splitlines()[-1] == "[] False False"


@pytest.mark.parametrize("gpu", [False, True])
def test_where_there_is_a_gpu_the_server_imports_less(
    gpu: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import multiprocessing

    from harness.executors.local import DEVICE_FREE, PRELOAD

    asked: list[str] = []
    server = multiprocessing.get_context("forkserver")
    monkeypatch.setattr(type(server), "set_forkserver_preload", lambda self, names: asked.extend(names))
    monkeypatch.setattr("harness.probes.gpu_files", lambda: gpu)
    LocalExecutor(Place(out=tmp_path, cache=tmp_path, data_dir=None), preload=[*PRELOAD, "attacks.lora"])
    assert asked == ([*DEVICE_FREE] if gpu else [*PRELOAD, "attacks.lora"])
