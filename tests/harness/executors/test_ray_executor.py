"""Ray: what a job asks for, folders as bytes, and a matrix on two machines of which one is lost in the middle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cheap_cells import environment

from harness import probes
from harness.cache import Cache, is_whole
from harness.errors import UsageError
from harness.executors.parcels import add_entries, pack
from harness.executors.resources import Resources


def test_resources_are_read_and_counted() -> None:
    one = Resources.from_text("cpus=2,gpus=0.25,memory=2GiB")
    assert (one.cpus, one.gpus, one.memory) == (2.0, 0.25, 2 << 30)
    assert one.fits({"CPU": 16.0, "GPU": 1.0, "memory": float(64 << 30)}) == 4
    assert one.fits({"CPU": 16.0, "memory": float(64 << 30)}) == 0
    assert Resources.from_text("") == Resources()


@pytest.mark.parametrize("text", ["cpu=1", "cpus=none", "cpus=1,cpus=2", "gpus=-1", "cpus=0"])
def test_impossible_resources_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Resources.from_text(text)


def test_an_entry_that_travels_is_found_and_a_damaged_one_is_not_taken(tmp_path: Path) -> None:
    def write(entry: Path, work: Path) -> None:
        (entry / "a.txt").write_text("alpha")

    made, _ = Cache(tmp_path / "here").get_or_make("k", {"x": 1}, write)
    parcel = pack([made], tmp_path / "here")
    add_entries(parcel, tmp_path / "there")
    found, hit = Cache(tmp_path / "there").get_or_make("k", {"x": 1}, lambda entry, work: pytest.fail("made twice"))
    assert hit
    assert is_whole(found)
    (made / "a.txt").write_text("changed")
    add_entries(pack([made], tmp_path / "here"), tmp_path / "elsewhere")
    assert not list((tmp_path / "elsewhere").glob("k/*/entry.json"))


def on_ray(script: str, *words: str) -> dict[str, Any]:
    """What a helper prints that starts a cluster, in a process of its own."""
    helpers = Path(__file__).parents[2] / "helpers"
    seen = {**environment(), "PYTHONPATH": os.pathsep.join([str(helpers), environment()["PYTHONPATH"]])}
    done = subprocess.run([sys.executable, str(helpers / script), *words], check=False, capture_output=True, text=True,
                          env=seen)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
@pytest.mark.skipif(bool(probes.check("ray")), reason="ray is not installed")
@pytest.mark.parametrize("storage", ["shared", "objects"])
def test_a_lost_machine_costs_time_and_no_cell(tmp_path: Path, storage: str) -> None:
    found = on_ray("ray_cluster.py", str(tmp_path), storage)
    assert found["slots"] == 2
    assert found["statuses"] == ["complete"] * 4
    assert found["retries"] >= 1  # the machine was at work


@pytest.mark.skipif(bool(probes.check("ray")), reason="ray is not installed")
def test_a_job_has_a_process_of_its_own_and_is_gone_when_it_is_stopped(tmp_path: Path) -> None:
    """Forked from a server of the worker that has the libraries: no import a job, and memory goes back with it."""
    found = on_ray("ray_processes.py", str(tmp_path))
    assert found["gone"]
    assert found["ends"] == ["done", "done"]
    first, second = found["notes"]
    assert first["pid"] != second["pid"]
    assert first["parent"] == second["parent"]  # one server
    assert first["torch"]
    assert first["offline"] == "1"


@pytest.mark.slow
@pytest.mark.skipif(bool(probes.check("ray")), reason="ray is not installed")
def test_a_cluster_that_is_gone_ends_the_command(tmp_path: Path) -> None:
    """Its jobs would wait for ever for a machine that does not come back."""
    assert on_ray("ray_lost.py", str(tmp_path))["said"].startswith("no machine of the Ray cluster is left")
