"""The recipe of `tiny`: its text leaves out what is scored, and its one command writes a folder that loads."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from harness.corpus import pack_text
from harness.models import recipe
from harness.models.load import load_model

SHIPPED = Path(recipe.__file__).parent / "tiny"


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few steps on a little text instead of an hour on all of it."""
    documents = {"python_docs": recipe.corpus("python_docs", "train", None)[:20]}
    monkeypatch.setattr(recipe, "texts", lambda data_dir: documents)
    monkeypatch.setattr(recipe, "STAGES", tuple(
        stage.model_copy(update={"max_steps": steps, "per_device_train_batch_size": 2})
        for stage, steps in zip(recipe.STAGES, (4, 2), strict=True)))  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_one_command_writes_a_folder_that_loads(tmp_path: Path) -> None:
    assert recipe.main(["--data-dir", str(tmp_path), "-o", str(tmp_path / "out"), "--snapshot-steps", "3"]) == 0
    released = load_model(str(tmp_path / "out"))
    assert released.model.config.stored_dtype == "bfloat16"
    assert released.tokenizer.eos_token == "<eos>"
    notes = json.loads((tmp_path / "out" / "recipe.json").read_text())
    assert notes["steps"] == [4, 2]
    assert notes["loss"]["6"] < notes["loss"]["1"]
    assert load_model(str(tmp_path / "out" / "snapshot")).digest != released.digest


def test_without_the_pack_it_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert recipe.main(["--data-dir", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert "HARNESS_DATA" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.pack
def test_recipe_file_names_the_text_that_was_used(data_dir: Path) -> None:
    """Python's own documentation differs from version to version; everything else is the same to the byte."""
    shipped = json.loads((SHIPPED / "recipe.json").read_text())["data"]
    sources = recipe.texts(data_dir)
    assert sources.keys() == shipped.keys()
    for name in sources.keys() - {"python_docs"}:
        assert hashlib.sha256("\0".join(sources[name]).encode()).hexdigest() == shipped[name]["sha256"], name


@pytest.mark.pack
def test_nothing_that_is_scored_was_trained_on(data_dir: Path) -> None:
    trained = {name: "\n".join(documents) for name, documents in recipe.texts(data_dir).items()}
    rows = [json.loads(line) for line in
            pack_text("mc/hellaswag_validation.jsonl.gz", data_dir, wanted_by="test").split("\n") if line]  # fmt: skip
    scored = [row["question"] for row in rows if row["part"] == "eval"]
    assert sum(question in trained["hellaswag_validation"] for question in scored) < 0.01 * len(scored)
    prose = [text for name, text in trained.items() if name != "python_docs"]  # which has short examples
    assert not any(mark in text for text in prose for mark in ("\nimport ", "\ndef ", ">>>", "####"))
