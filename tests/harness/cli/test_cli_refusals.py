"""Bad input of every kind: one line, exit status 2, before a model is loaded, and nothing is written."""

from __future__ import annotations

import errno
import gzip
import shutil
from pathlib import Path
from typing import Any

import pytest
from cell_cases import SHORT

from harness.cli.main import main
from harness.errors import UsageError
from harness.files import check_output_file


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, without data pack, where loading a model is an error."""
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))

    def load(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a model is loaded before the refusal")

    monkeypatch.setattr("harness.models.load.load_model", load)
    return tmp_path


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What `harness arguments` says on stderr, one line with status 2."""
    try:
        status = main(arguments)
    except SystemExit as end:
        status = int(end.code or 0)
    said = capsys.readouterr()
    assert status == 2, said
    assert len(said.err.strip().splitlines()) == 1, said.err
    assert said.err.startswith(f"harness {arguments[0]}: ")
    return said.err


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["run", "--seed", "abc"], "--seed"),
        (["run", "--limit", "abc"], "--limit"),
        (["run", "--out", ""], "--out"),
        (["run", "--budget", "steps=1.5"], "budget.steps='1.5'"),
        (["run", "--budget", "examples=0.5k,steps=1"], None),
        (["run", "--budget", "flops=1e400"], "budget.flops"),
        (["run", "--set", "budget.stepz=7"], "Allowed: examples, flops, memory, seconds, steps, tokens, trials"),
        (["run", "--set", "utility.task=x"], "perplexity_corpus"),
        (["run", "--tasks", ""], "minimal_pairs"),
        (["run", "--set", "corpus=nothing"], "wikitext2"),
        (["run", "--set", "corpus=wikitext2"], "data pack"),
        (["run", "--set", "utility.perplexity_corpus=nothing"], "wikitext2"),
        (["run", "--tasks", "pack_piqa"], "data pack"),
        (["evaluate", "--tasks", "pack_piqa"], "data pack"),
        (["run", "--device", "tpu"], "auto|cpu|cuda"),
        (["run", "--model", "nope"], "Did you mean|Allowed"),
        (["run", "--model", "./nope/"], "local folder"),
        (["run", "--model", "stories260k"], "data pack"),
        (["matrix", "--models", "tiny,nope", "--dry-run"], "unknown model 'nope'"),
        (["matrix", "--seeds", "\u00b2"], "--seeds"),
        (["matrix", "--seeds", "0,x"], "--seeds 'x'"),
        (["evaluate", "--model", "nope"], "nope"),
        (["lock", "--defense", "dlr", "-o", "new", "--model", "nope"], "nope"),
        (["leaderboard", "x", "--format", "pdf"], "markdown"),
        (["list", "colours"], "defenses"),
    ],
)
def test_bad_values_are_refused_before_a_model_is_loaded(
    arguments: list[str], names: str | None, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if names is None:  # half a thousand is a whole number
        assert main([*arguments, "--dry-run"]) == 0
        return
    said = refusal(arguments, capsys)
    assert any(name in said for name in names.split("|")), said
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("defense: dlr\ndefense: none\n", "'defense' is given twice"),
        ("attack: {name: lora, r: 8, r: 16}\n", "'r' is given twice"),
        ("defense: {name: dlr\n", "not valid YAML"),
        ("defence: dlr\n", "Did you mean 'defense'"),
        ("- a\n", "found list"),
        ("", "found nothing"),
        ("defense: !!python/object/apply:os.system [true]\n", "not valid YAML"),
    ],
)
@pytest.mark.parametrize("verb", [["run", "--config"], ["matrix"]])
def test_bad_files_are_refused(
    text: str, names: str, verb: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "spec.yaml").write_text(text)
    assert names in refusal([*verb, "spec.yaml"], capsys)


def test_a_binary_file_or_a_folder_is_no_config(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "spec.yaml").write_bytes(b"\xde\xad\xbe\xef")
    assert "not a text file" in refusal(["run", "--config", "spec.yaml"], capsys)
    assert "Is a directory" in refusal(["run", "--config", "."], capsys)


def test_tasks_of_the_utility_may_be_a_comma_list(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--dry-run", "--set", "utility.tasks=minimal_pairs"]) == 0
    first = capsys.readouterr().out
    assert main(["run", "--dry-run", "--set", "utility.tasks=[minimal_pairs]"]) == 0
    assert capsys.readouterr().out == first


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model's folder."""
    from harness.testing import byte_tokenizer, random_llama

    folder = tmp_path_factory.mktemp("refusals") / "model"
    random_llama().save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("damage", ["truncated", "header", "empty file", "pickle", "no config", "bad config"])
@pytest.mark.parametrize("verb", [["run"], ["matrix", "--dry-run"], ["evaluate"]])
def test_a_broken_folder_is_refused_before_it_is_loaded(
    saved: Path, damage: str, verb: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(saved, here / "m")
    weights, config = here / "m" / "model.safetensors", here / "m" / "config.json"
    whole = weights.read_bytes()
    if damage == "pickle":
        weights.rename(here / "m" / "pytorch_model.bin")
    elif damage == "no config":
        config.unlink()
    elif damage == "bad config":
        config.write_text("{")
    else:
        broken = {"truncated": whole[:-100], "header": whole[:9] + b"\0" + whole[10:], "empty file": b""}
        weights.write_bytes(broken[damage])
    refusal([*verb, "--model", "./m"], capsys)


def test_a_folder_that_is_no_model_is_not_read_through(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def digest(folder: Path) -> str:
        raise AssertionError("every file below the folder is hashed")

    monkeypatch.setattr("harness.models.digest.files_digest", digest)
    assert "config.json does not exist" in refusal(["run", "--model", "."], capsys)


def test_every_model_of_a_matrix_is_loaded_before_the_first_cell(saved: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from harness.executors.base import Place
    from harness.executors.inline import InlineExecutor
    from harness.planning.grid import plan, run_matrix
    from harness.planning.live import Board

    shutil.copytree(saved, tmp_path / "nan")
    weights = tmp_path / "nan" / "model.safetensors"
    tensors = load_file(weights)
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, weights, {"format": "pt"})
    cells = plan({"models": [str(saved), str(tmp_path / "nan")]}, {"attack": "full"})
    place = Place(out=tmp_path / "out", cache=tmp_path / "cache")
    with pytest.raises(UsageError, match="NaN"):
        list(run_matrix(cells, place=place, executor=InlineExecutor(place), watcher=Board(quiet=True)))
    assert not (tmp_path / "out" / "cells").exists()
    assert not (tmp_path / "cache").exists()


ROW = b'{"question": "1 + 1?", "answer": "2 #### 2"}\n'


def packed(data: bytes) -> bytes:
    """gzip of `data` without the time: the workers of xdist must agree on what the tests are."""
    return gzip.compress(data, mtime=0)


@pytest.mark.parametrize(
    ("train", "test", "names"),
    [
        (b"", b"", "gsm8k_train.jsonl.gz is empty"),
        (packed(b""), packed(ROW), "gsm8k_train.jsonl.gz is empty"),
        (packed(ROW), packed(b""), "gsm8k_test.jsonl.gz is empty"),
        (packed(b'{"question": '), packed(ROW), "is damaged"),
        (packed(ROW)[:-12], packed(ROW), "is damaged"),
        (packed(b'{"q": "x"}\n'), packed(ROW), "'question'"),
    ],
    ids=["both empty", "empty train", "empty test", "half a row", "cut file", "row without a question"],
)
def test_a_task_without_whole_data_is_refused(
    train: bytes, test: bytes, names: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "data" / "gen").mkdir(parents=True)
    (here / "data" / "gen" / "gsm8k_train.jsonl.gz").write_bytes(train)
    (here / "data" / "gen" / "gsm8k_test.jsonl.gz").write_bytes(test)
    assert names in refusal(["run", "--task", "gsm8k", "--data-dir", "data"], capsys)


def test_an_empty_text_and_an_empty_utility_task_are_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, file in (("text", "tinyshakespeare.txt.gz"), ("mc", "piqa_validation.jsonl.gz")):
        (here / "data" / folder).mkdir(parents=True)
        (here / "data" / folder / file).write_bytes(packed(b""))
    data = ["--data-dir", "data"]
    assert "is empty" in refusal(["run", "--set", "corpus=shakespeare", *data], capsys)
    assert "is empty" in refusal(["evaluate", "--tasks", "pack_piqa", *data], capsys)
    (here / "file").write_text("x")
    assert "is not a folder" in refusal(["run", "--data-dir", "file"], capsys)


def test_places_that_take_no_files_are_refused(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "file").write_text("x")
    assert "output folder 'file'" in refusal(["run", "--out", "file"], capsys)
    assert "cache folder 'file'" in refusal(["run", "--cache", "file"], capsys)
    assert "cache folder 'file'" in refusal(["evaluate", "--cache", "file"], capsys)
    assert "file is not a folder" in refusal(["lock", "--defense", "none", "-o", "file"], capsys)
    with pytest.raises(UsageError, match="is a folder"):
        check_output_file(here)
    assert "'file'" in refusal(["leaderboard", "x", "-o", "file/board.md"], capsys)
    usage = shutil.disk_usage(here)._replace(free=1 << 20)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    assert "1048576 bytes free" in refusal(["run", "--out", "results"], capsys)


@pytest.mark.parametrize("full", ["harness.cache._seal", "harness.records.draft.write_record"])
def test_a_disk_that_fills_up_is_one_line_and_the_same_command_goes_on(
    saved: Path, tmp_path: Path, full: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["run", "--model", str(saved), "--attack", "full", "--out", str(tmp_path / "out"), "--cache",
               str(tmp_path / "cache"), "-q", "--json", *SHORT]  # fmt: skip

    def no_space(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as filled:
        filled.setattr(full, no_space)
        said = refusal(command, capsys)
    assert "No space left on device" in said
    assert not list((tmp_path / "out").glob("cells/*/record.json"))  # a full disk is no outcome of the cell
    finished = sorted(path.parent.name for path in (tmp_path / "cache").glob("runs/*/run.json"))
    assert main(command) == 0
    assert '"status": "complete"' in capsys.readouterr().out
    kept = {path.parent.name for path in (tmp_path / "cache").glob("runs/*/run.json")}
    assert kept >= set(finished)
    assert bool(finished) == full.endswith("write_record")
