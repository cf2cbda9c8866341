"""`harness.run` and `harness.matrix`: their examples are true, and they do the command line's own work."""

from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import harness
from harness import api
from harness.errors import UsageError

SHORT: dict[str, Any] = {
    "replicates": 1,
    "utility": {"limit": 8, "perplexity_tokens": 1000},
    "task": {"name": "python_source", "max_items": 8, "train_bytes": 60000},
}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_the_examples_in_the_docstrings_are_true() -> None:
    failed, tried = doctest.testmod(api, optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL)
    assert (failed, tried) == (0, 7)


@pytest.mark.slow
def test_a_grid_shares_work_and_is_found_again(place: Path) -> None:
    attacks = [{"name": name, "max_steps": 2, "eval_points": 1} for name in ("full", "lora")]
    records = harness.matrix({"attacks": attacks}, SHORT)
    assert [record.name("attack") for record in records] == ["full", "lora"]
    assert {record.status for record in records} == {"complete"}
    assert records[0].provenance.weights.base == records[1].provenance.weights.base
    again = harness.run({**SHORT, "attack": attacks[1]})
    assert again == records[1]
    assert sorted(path.name for path in (place / "results" / "cells").iterdir()) == sorted(r.id for r in records)


def test_a_suite_is_no_cell_and_bad_input_is_refused_before_anything_is_written(place: Path) -> None:
    for wrong, reason in (({"attack": "standard:quick"}, "stands for 3 cells"), ({"atack": "lora"}, "atack"),
                          ({"model": "./nowhere"}, "nowhere")):  # fmt: skip
        with pytest.raises(UsageError, match=reason):
            harness.run(wrong)
    with pytest.raises(AttributeError, match="no attribute 'runn'"):
        _ = harness.runn
    assert not (place / "results").exists()


def test_import_is_light() -> None:
    code = "import sys, harness; assert not {'torch', 'pydantic'} & set(sys.modules); harness.matrix, harness.run"
    subprocess.run([sys.executable, "-c", code], check=True)
