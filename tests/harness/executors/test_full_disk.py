"""A disk that really fills up in the middle of a matrix: the command says so, and what was finished is kept."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cheap_cells import cheap_grid, cheap_model, environment, matrix_command

from harness.records.record_files import read_record

CELLS = 4


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=80m", "lockbench-test", str(place)]
    try:
        made = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no command mount here")
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path) -> None:
    """Write until nothing more fits."""
    with (disk / "filler").open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue


def records(out: Path) -> dict[str, bytes]:
    """The complete ones, by cell."""
    return {file.parent.name: file.read_bytes() for file in out.glob("cells/*/record.json")
            if (record := read_record(file.parent)) is not None and record.status == "complete"}  # fmt: skip


@pytest.mark.parametrize("full", ["out", "cache"])
def test_the_command_ends_in_one_line_and_the_same_command_goes_on(full: str, disk: Path, tmp_path: Path) -> None:
    model = cheap_model(tmp_path / "model")
    grid = cheap_grid(model, [{"number": index, "sleep": 0.3} for index in range(CELLS)])
    command = matrix_command(grid, tmp_path, "--executor", "local", "--workers", "1")
    where, out = command.index(f"--{full}") + 1, tmp_path / "out"
    command[where] = str(disk / full)
    out = disk / "out" if full == "out" else out
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, env=environment(), text=True, **pipes) as run:
        limit = time.monotonic() + 120
        while not records(out) and run.poll() is None and time.monotonic() < limit:
            time.sleep(0.02)
        before = records(out)
        fill(disk)
        said = run.communicate(timeout=120)[0]
    assert run.returncode == 2, said
    assert "No space left on device" in said.splitlines()[-1]
    assert 0 < len(before) < CELLS
    assert records(out).items() >= before.items()
    board = [*command[:3], "leaderboard", str(out), "--no-cache", "-o", str(disk / "board.md")]
    page = subprocess.run(board, env=environment(), capture_output=True, text=True, check=False)
    assert page.returncode == 2
    assert page.stderr.count("\n") == 1
    assert "No space left on device" in page.stderr
    assert not (disk / "board.md").exists()
    (disk / "filler").unlink()
    assert subprocess.run(command, env=environment(), capture_output=True, check=False).returncode == 0
    after = records(out)
    assert len(after) == CELLS
    assert after.items() >= before.items()
