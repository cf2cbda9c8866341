"""The verbs one after the other, as a user would, and what they refuse."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cell_cases import SHORT

from harness.cli.main import main
from harness.records.cell_files import CellFiles
from leaderboards.index import Index

QUICK_LOCK = [
    "--set",
    "defense.depth=4",
    "--set",
    "defense.module_steps=2",
    "--set",
    "defense.polish_steps=2",
    "--set",
    "defense.self_generated=0",
    "--set",
    "defense.block_size=64",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random model in it; results and cache go beside it."""
    from harness.testing import byte_tokenizer, random_llama

    folder = tmp_path_factory.mktemp("flow")
    random_llama().save_pretrained(folder / "model")
    byte_tokenizer().save_pretrained(folder / "model")
    return folder


def where(place: Path, out: str = "results") -> list[str]:
    return ["--model", str(place / "model"), "--cache", str(place / "cache"), "--out", str(place / out)]


def test_matrix_then_leaderboard_then_verify(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = place / "grid.yaml"
    settings.write_text(
        "defenses: [none, {name: dlr, depth: 4, module_steps: 2, polish_steps: 2, self_generated: 0, "
        "block_size: 64}]\nattacks: [full, lora]\n"
    )
    command = ["matrix", str(settings), *where(place), *SHORT, "--quiet", "--json"]
    assert main(command) == 0
    records = json.loads(capsys.readouterr().out)
    assert [r["status"] for r in records] == ["complete"] * 4
    assert (
        len({r["provenance"]["weights"]["reference"][0] for r in records}) == 2
    )  # a reference an attack, shared by locks

    assert main(command) == 0  # resumed: found complete
    assert [r["provenance"]["finished"] for r in json.loads(capsys.readouterr().out)] == [
        r["provenance"]["finished"] for r in records
    ]
    assert main(command[:-1]) == 0  # with its tables
    assert "robustness" in capsys.readouterr().out
    with Index(place / "cache") as index:  # so the first leaderboard need not read them strictly again
        known = [CellFiles(folder).digest for folder in (place / "results" / "cells").iterdir()]
        assert len([digest for digest in known if digest and index.get(digest) is not None]) == 4
    cache = ["--cache", str(place / "cache")]
    for kind, sign in (("table", "robustness"), ("markdown", "|"), ("csv", ","), ("latex", r"\begin"), ("json", "[")):
        assert main(["leaderboard", str(place / "results"), "--format", kind, *cache]) == 0
        said = capsys.readouterr().out
        assert sign in said
        assert main(["leaderboard", str(place / "results"), "--format", kind, "--no-cache"]) == 0
        assert capsys.readouterr().out == said
    board = place / "board.md"
    command = ["leaderboard", str(place / "results"), "--format", "markdown", "--cells", "-o", str(board)]
    assert main([*command, *cache]) == 0
    assert "dlr" in board.read_text()
    assert main(["verify", str(place / "results")]) == 0
    assert "0 mismatches" in capsys.readouterr().out


def test_run_prints_the_table_and_where_the_record_is(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--defense", "none", "--attack", "full", *where(place), *SHORT]) == 0
    said = capsys.readouterr()
    assert "recovery" in said.out
    assert "record.json" in said.out
    assert "# cell " in said.err


def test_verify_finds_an_altered_record(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test_run_prints_the_table_and_where_the_record_is(place, capsys)
    shutil.copytree(place / "results", tmp_path / "results")
    target = next((tmp_path / "results" / "cells").glob("*/record.json"))
    raw = json.loads(target.read_text())
    raw["recovery"]["value"] = 0.0
    target.write_text(json.dumps(raw))
    assert main(["verify", str(tmp_path / "results")]) == 1
    assert "recovery" in capsys.readouterr().out


def test_verify_rechecks_digests_and_bills_that_are_still_here(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test_run_prints_the_table_and_where_the_record_is(place, capsys)
    verify = ["verify", str(tmp_path / "results"), "--cache", str(place / "cache")]
    shutil.copytree(place / "results", tmp_path / "results")
    target = next(path for path in (tmp_path / "results" / "cells").glob("*/record.json")
                  if json.loads(path.read_text())["spec"]["defense"]["name"] == "none")  # fmt: skip
    honest = target.read_text()
    assert main(verify) == 0
    said = capsys.readouterr().out
    for done in ("task.digest: rechecked", "provenance.weights.locked: rechecked", "on trust"):
        assert done in said

    def altered(*path: str | int, value: object) -> str:
        raw = json.loads(honest)
        inner = raw
        for part in path[:-1]:
            inner = inner[part]
        inner[path[-1]] = value
        target.write_text(json.dumps(raw))
        assert main(verify) == 1
        return capsys.readouterr().out

    wrong = "0" * 64
    assert "task.digest" in altered("task", "digest", value=wrong)
    assert "weights.attacked of seed" in altered("provenance", "weights", "attacked", value=[wrong])
    assert "weights.reference of seed" in altered("provenance", "weights", "reference", value=[wrong])
    assert "weights.locked before" in altered("provenance", "weights", "locked", value=wrong)
    assert "weights.base before" in altered("provenance", "weights", "base", value=wrong)
    assert "cost (undo, search, attack)" in altered("cost", "attack", "seconds", value=0.5)
    target.write_text(honest)
    assert main(verify) == 0


@pytest.mark.slow
def test_a_cell_that_is_run_again_from_nothing_gives_the_same_scores(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--defense", "none", "--attack", "full", *where(place), "-o", str(tmp_path), *SHORT]) == 0
    capsys.readouterr()
    assert main(["verify", str(tmp_path), "--quick", "--rerun", "1"]) == 0
    said = capsys.readouterr().out
    done = re.search(r"rerun [0-9a-f]{16}: ([0-9]+) of \1 item scores are equal, the largest difference is 0\n", said)
    assert done, said


def test_verify_rechecks_the_shipped_base(tmp_path: Path) -> None:
    from record_factory import make_cell

    from harness.records.recheck import recheck

    cell = make_cell()  # of tiny, with a base digest that is made up
    found, notes = recheck([cell], data_dir=None, cache=tmp_path)
    assert [mismatch.field for mismatch in found if "base" in mismatch.field] == ["provenance.weights.base"]
    assert any("weights.base: rechecked 1" in note for note in notes)


@pytest.mark.slow
def test_lock_writes_a_folder_that_plain_transformers_loads(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = place / "locked"
    command = [
        "lock",
        "--defense",
        "dlr",
        "--model",
        str(place / "model"),
        "--cache",
        str(place / "cache"),
        "-o",
        str(target),
        *QUICK_LOCK,
        "--quiet",
        "--json",
    ]
    assert main(command) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["bill"]["forward_flops"] > 0
    assert (
        main(["evaluate", "--model", str(target), "--limit", "20", "--cache", str(place / "cache"), "--json", "-q"])
        == 0
    )
    assert json.loads(capsys.readouterr().out)["digest"]
    code = (
        "import sys; sys.path = [p for p in sys.path if 'lockbench' not in p]\n"
        "from transformers import AutoModelForCausalLM as M\n"
        f"m = M.from_pretrained({str(target)!r}, trust_remote_code=True)\n"
        "import torch; print(type(m).__name__, m.generate(torch.tensor([[5, 6]]), max_new_tokens=3).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=place)
    assert "torch.Size([1, 5])" in done.stdout, done.stderr
    assert main(command) == 2  # the folder is not empty now
    assert "is not empty" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["truncated", "pickle", "nan", "html", "empty"])
def test_a_broken_checkpoint_is_one_line_and_status_2(
    place: Path, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(place / "model", broken)
    weights = broken / "model.safetensors"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "pickle":
        weights.rename(broken / "pytorch_model.bin")
    elif damage == "html":
        weights.write_text("<!DOCTYPE html><html>Not Found</html>" * 50)
    elif damage == "empty":
        shutil.rmtree(broken)
        broken.mkdir()
    else:
        from safetensors.torch import load_file, save_file

        tensors = load_file(weights)
        tensors["model.norm.weight"][3] = float("nan")
        save_file(tensors, weights, {"format": "pt"})
    out = tmp_path / "out"
    command = [
        "run",
        "--model",
        str(broken),
        "--attack",
        "full",
        "--out",
        str(out),
        "--cache",
        str(tmp_path / "c"),
        "-q",
        *SHORT,
    ]
    assert main(command) == 2
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1, said
    assert said.startswith("harness run: ")


def test_an_output_folder_that_cannot_be_used_is_refused(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "file"
    taken.write_text("x")
    assert main(["run", "--attack", "full", "--out", str(taken), "-q"]) == 2
    old = tmp_path / "old" / "cells" / ("0" * 16)
    old.mkdir(parents=True)
    (old / "record.json").write_text('{"schema_version": 99}')
    assert main(["run", "--attack", "full", "--out", str(tmp_path / "old"), "-q"]) == 2
    said = capsys.readouterr().err
    assert "schema version 99" in said
    assert len(said.strip().splitlines()) == 2
