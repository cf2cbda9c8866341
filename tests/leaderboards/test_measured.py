"""The model card of a locked folder with what records measured of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from record_factory import make_cell, write_cell

from harness.cli.main import main
from harness.models.card import Card, with_measured
from harness.numbers.robustness import Cell
from harness.records.sections import Flag

OURS, THEIRS = "c" * 64, "d" * 64
UNMOVED = (Flag(flag="unmoved", severity="error", detail="x"),)


def locked(digest: str, **changes: Any) -> Cell:
    cell = make_cell(utility=0.97, **changes)
    weights = cell.record.provenance.weights.model_copy(update={"locked": digest})
    made = cell.record.provenance.model_copy(update={"weights": weights})
    return Cell(cell.record.model_copy(update={"provenance": made}), cell.items)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for cell in (locked(OURS, attack="lora_|x", recovery=0.3), locked(OURS, attack="full", recovery=0.6),
                 locked(OURS, attack="mezo", flags=UNMOVED), locked(THEIRS, defense="pmp", recovery=0.05)):  # fmt: skip
        write_cell(tmp_path / "results", cell)
    return tmp_path / "results"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "model"
    place.mkdir()
    block = {"defense": "dlr", "settings": {"depth": 4}, "base_architecture": "LlamaForCausalLM", "base_name": "tiny",
             "base_model_type": "llama", "base_digest": "a" * 64, "digest": OURS}  # fmt: skip
    (place / "config.json").write_text(json.dumps({"lockbench": block}))
    return place


def test_the_card_has_the_rows_of_these_weights_only(results: Path, folder: Path, capsys: Any) -> None:
    assert main(["card", str(folder), "--results", str(results)]) == 0
    card = capsys.readouterr().out
    assert card.startswith("---\n")
    assert f"`{OURS}`" in card
    ranking = next(line for line in card.splitlines() if line.startswith("| 2 "))  # pmp is better, and not ours
    assert "full" in ranking
    assert "pmp" not in card
    assert card.index("| full ") < card.index(r"lora\_\|x")
    assert "not counted: mezo" in card


def test_writing_again_replaces_what_was_measured_and_keeps_the_rest(results: Path, folder: Path) -> None:
    (folder / "README.md").write_text("---\na: b\n---\n\n# mine\n")
    command = ["card", str(folder), "--results", str(results), "--write"]
    assert main(command) == 0
    once = (folder / "README.md").read_text()
    assert once.startswith("---\na: b\n---\n\n# mine\n")
    (folder / "README.md").write_text(once + "\nmore of mine\n")
    assert main(command) == 0
    assert (folder / "README.md").read_text() == once + "\nmore of mine\n"


def test_a_card_without_records_says_what_the_folder_says(folder: Path, capsys: Any) -> None:
    assert main(["card", str(folder)]) == 0
    card = capsys.readouterr().out
    for words in ("tiny, locked by dlr", "a" * 64, '{"depth": 4}', "not a protection"):
        assert words in card


@pytest.mark.parametrize(("config", "reason"), [(None, "no checkpoint"), ({}, "not locked"),
                                                ({"lockbench": {"digest": "e" * 64}}, "needs")])  # fmt: skip
def test_other_folders_are_refused(folder: Path, config: Any, reason: str, capsys: Any) -> None:
    (folder / "config.json").unlink()
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    assert main(["card", str(folder)]) == 2
    assert reason in capsys.readouterr().err


def test_records_of_other_weights_are_refused_by_digest(results: Path, folder: Path, capsys: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["lockbench"]["digest"] = "e" * 64
    (folder / "config.json").write_text(json.dumps(config))
    assert main(["card", str(folder), "--results", str(results), "--write"]) == 2
    assert "eeee" in capsys.readouterr().err
    assert not (folder / "README.md").exists()


def test_parts_that_a_lock_does_not_know_leave_no_heading() -> None:
    card = Card(title="t", tags=["x"], intro="i", base="b", digest="d", settings={}, breaks="b")
    assert "## Use" not in str(card)
    assert "## Fidelity" not in str(card)
    assert with_measured(with_measured(str(card), "one"), "two") == with_measured(str(card), "two")
