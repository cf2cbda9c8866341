from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from record_factory import make_cell, write_cell

from harness.errors import UsageError
from harness.records.cell_files import ITEMS, MAX_BYTES, RECORD
from leaderboards.load import load_results


def test_whole_cells_are_read_and_others_named(tmp_path: Path) -> None:
    good, cut, old = make_cell(attack="full"), make_cell(attack="lora"), make_cell(attack="qlora")
    write_cell(tmp_path, good)
    items = write_cell(tmp_path, cut) / ITEMS
    items.write_bytes(items.read_bytes()[:-1])
    record = write_cell(tmp_path, old) / RECORD
    record.write_text(json.dumps({**json.loads(record.read_text()), "schema_version": 99}))
    (tmp_path / "cells" / "abandoned").mkdir()
    found = load_results(tmp_path)
    assert [cell.record.id for cell in found.cells] == [good.record.id]
    assert found.cells[0].items == good.items
    reasons = {skipped.folder: skipped.reason for skipped in found.skipped}
    assert "unfinished" in reasons["abandoned"]
    assert "partial" in reasons[cut.record.id]
    assert "version 99" in reasons[old.record.id]


def test_a_moved_cell_is_not_another_cell(tmp_path: Path) -> None:
    folder = write_cell(tmp_path, make_cell())
    folder.rename(folder.with_name("0" * 16))
    assert "is of cell" in load_results(tmp_path).skipped[0].reason


def test_a_folder_of_another_version_only_is_refused(tmp_path: Path) -> None:
    record = write_cell(tmp_path, make_cell()) / RECORD
    record.write_text(record.read_text().replace('"schema_version": 2', '"schema_version": 3'))
    with pytest.raises(UsageError, match="schema version 3"):
        load_results(tmp_path)


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no results"):
        load_results(tmp_path)


def test_only_some_ids_can_be_read(tmp_path: Path) -> None:
    cells = [make_cell(attack=name) for name in ("full", "lora")]
    for cell in cells:
        write_cell(tmp_path, cell)
    assert len(load_results(tmp_path, only=[cells[0].record.id]).cells) == 1


def test_leaderboards_import_no_torch() -> None:
    modules = "board, columns, formats, load, plots, rows, summary, units, verify"
    code = f"import sys; from leaderboards import {modules}; assert 'torch' not in sys.modules, 'torch'"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("verb", ["leaderboard", "verify --quick"])
def test_who_waits_for_many_cells_sees_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    from harness.cli.main import main

    for seed in range(4):
        write_cell(tmp_path, make_cell(seed=seed))
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    words = [*verb.split(), str(tmp_path)]
    status = main(words)
    few = capsys.readouterr()
    assert few.err == ""
    monkeypatch.setattr("leaderboards.groups.MANY", 4)
    assert main(words) == status
    many = capsys.readouterr()
    assert many.out == few.out
    said = many.err.splitlines()
    if verb == "leaderboard":
        assert said == ["reading and ranking: 4/4"]
    else:
        assert said[:4] == [f"reading cells: {done}/4" for done in (1, 2, 3, 4)]
        assert said[4:]


@pytest.mark.parametrize("name", ["record.json", "items.parquet", "log.txt"])
def test_a_file_of_a_cell_that_is_too_large_is_named_and_not_read(tmp_path: Path, name: str) -> None:
    large, _ = (write_cell(tmp_path, make_cell(attack=attack)) for attack in ("full", "lora"))
    with (large / name).open("ab") as file:
        file.truncate(MAX_BYTES + 1)  # a hole: it takes no room
    for found in (load_results(tmp_path), load_results(tmp_path, utility=False)):
        (skipped,) = found.skipped
        assert skipped.folder == large.name
        assert f"{name} is larger than {MAX_BYTES} bytes" in skipped.reason
        assert len(found.cells) == 1
