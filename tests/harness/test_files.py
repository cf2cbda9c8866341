from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.files import (
    atomic_write_bytes,
    atomic_write_json,
    atomic_write_text,
    canonical_json,
    check_output_folder,
    confined,
    sha256,
)


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    atomic_write_text(path, "old")

    def fail(handle: int) -> None:
        raise OSError("disk on fire")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="fire"):
        atomic_write_bytes(path, b"new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_json_is_strict(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        atomic_write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []
    atomic_write_json(tmp_path / "a.json", {"x": [1.5, None, "ä"]})
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == {"x": [1.5, None, "ä"]}


def test_any_text_can_be_written_and_hashes_by_content(tmp_path: Path) -> None:
    atomic_write_text(tmp_path / "a", "lone \ud800 surrogate")
    atomic_write_text(tmp_path / "b", "lone \ud800 surrogate")
    assert sha256(tmp_path / "a") == sha256(tmp_path / "b")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


@given(st.dictionaries(st.text(), st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()))
def test_canonical_json_does_not_depend_on_order(value: dict[str, object]) -> None:
    assert canonical_json(value) == canonical_json(dict(reversed(value.items())))
    assert json.loads(canonical_json(value)) == value


@given(st.text(max_size=300))
def test_a_name_stays_inside_the_folder_or_is_refused(name: str) -> None:
    folder = Path("/out/results")
    try:
        path = confined(folder, "cells", name)
    except UsageError:
        return
    assert path.parent == folder / "cells"
    assert path.name == name


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/etc", "a/b", "a\\b", "a\0b", "-rf", ".hidden", "x" * 300])
def test_escaping_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="output path"):
        confined(tmp_path, name)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "cells").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="leads out"):
        confined(tmp_path / "out", "cells", "x")


def test_output_folder_is_made_or_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_output_folder(tmp_path / "new" / "deep")
    assert (tmp_path / "new" / "deep").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        check_output_folder(tmp_path / "file")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 5, 5))  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="5 bytes free"):
        check_output_folder(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="cannot be written"):
        check_output_folder(tmp_path)
