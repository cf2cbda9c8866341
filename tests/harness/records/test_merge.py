"""Folders of results laid together: everything whole arrives, and two scores for one cell are never ranked."""

from __future__ import annotations

from pathlib import Path

import pytest
from record_factory import make_cell, make_items, write_cell

from harness.cli.main import main
from harness.records.merge import merge
from harness.records.record_files import read_record


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_cells_of_several_folders_come_together_whole(tmp_path: Path) -> None:
    for place, seeds in (("a", (0, 1)), ("b", (1, 2))):
        for seed in seeds:
            write_cell(tmp_path / place, make_cell(seed=seed))
    found = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "c")
    assert sorted(one.what for one in found) == ["same", "taken", "taken"]
    for one in found:
        assert read_record(tmp_path / "c" / "cells" / one.id) is not None
    before = tree(tmp_path / "c")
    assert {one.what for one in merge([tmp_path / "a"], tmp_path / "c")} == {"same", "taken"}
    assert tree(tmp_path / "c") == before


def test_a_complete_cell_is_taken_before_one_that_is_not(tmp_path: Path) -> None:
    cell = make_cell()
    write_cell(tmp_path / "a", make_cell(status="failed", reason="died"))
    write_cell(tmp_path / "b", cell)
    assert [one.what for one in merge([tmp_path / "a", tmp_path / "b"], tmp_path / "c")] == ["taken"]
    kept = read_record(tmp_path / "c" / "cells" / cell.record.id)
    assert kept is not None
    assert kept.status == "complete"


def test_different_scores_are_reported_kept_apart_and_stay_a_clash(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = make_cell(), make_cell(items=make_items(recovery=0.9, seeds=(1, 2)))
    assert one.record.id == other.record.id
    write_cell(tmp_path / "a", one)
    write_cell(tmp_path / "b", other)
    write_cell(tmp_path / "b", make_cell(seed=7))
    assert main(["merge", str(tmp_path / "a"), str(tmp_path / "b"), "-o", str(tmp_path / "c")]) == 1
    said = capsys.readouterr().out
    assert f"clash: {one.record.id}" in said
    assert "2 cells" in said
    assert read_record(tmp_path / "c" / "cells" / one.record.id) is None
    sides = [read_record(path) for path in (tmp_path / "c" / "clashes" / one.record.id).iterdir()]
    assert {side.recovery.value for side in sides if side} == {one.record.recovery.value, other.record.recovery.value}
    assert main(["leaderboard", str(tmp_path / "c"), "--cells", "--no-cache"]) == 0  # what is whole still ranks
    assert main(["merge", str(tmp_path / "a"), "-o", str(tmp_path / "c")]) == 1  # the clash is not forgotten


def test_a_cut_off_copy_reads_as_nothing_and_is_mended(tmp_path: Path) -> None:
    cell = make_cell()
    write_cell(tmp_path / "a", cell)
    half = write_cell(tmp_path / "c", cell)
    items = half / "items.parquet"
    items.write_bytes(items.read_bytes()[:-9])
    assert read_record(half) is None
    assert [one.what for one in merge([tmp_path / "a"], tmp_path / "c")] == ["taken"]
    assert read_record(half) is not None
    (tmp_path / "d" / "cells" / cell.record.id).mkdir(parents=True)
    assert [one.what for one in merge([tmp_path / "d"], tmp_path / "e")] == ["unreadable"]


def test_a_folder_without_results_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["merge", str(tmp_path / "no"), "-o", str(tmp_path / "c")]) == 2
    assert "holds no results" in capsys.readouterr().err
