"""The command line: help, exit statuses, one-line refusals, start-up without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli.main import VERBS, main


def test_bare_command_prints_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "harness run --defense dlr --attack lora" in capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_examples(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])
    assert end.value.code == 0
    assert "examples:" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--defense", "dlrr"],
        ["run", "--attack", "loar"],
        ["run", "--task", "nothing"],
        ["run", "--budget", "steps=-1"],
        ["run", "--budget", "memory=many"],
        ["run", "--set", "attack.learning_rate=-1"],
        ["run", "--set", "attack.learning_rat=1"],
        ["run", "--set", "nonsense"],
        ["run", "--model", "hf"],
        ["run", "--config", "/nonexistent.yaml"],
        ["run", "--data-dir", "/nonexistent"],
        ["run", "--task", "wikitext2", "--dry-run"],
        ["run", "--model-args", "revisionn=1"],
        ["matrix", "--seeds", "a,b"],
        ["matrix", "--defenses", ","],
        ["matrix", "--attacks", "lora,lora"],
        ["matrix", "/nonexistent.yaml"],
        ["leaderboard", "/nonexistent"],
        ["verify", "/nonexistent"],
        ["fetch", "nothing"],
        ["lock", "--defense", "dlr"],
        ["lock", "-o", "x"],
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert len(said.err.strip().splitlines()) == 1
    assert said.err.startswith(f"harness {arguments[0]}: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["run", "--sed", "x"], ["list", "colours"], ["leaderboard"], ["nothing"]])
def test_unparsable_command_lines_are_status_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2


def test_lm_evals_spellings(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert (
        main(
            [
                "run",
                "--model",
                "hf",
                "--model_args",
                "pretrained=tiny,dtype=bfloat16",
                "--tasks",
                "minimal_pairs",
                "--batch_size",
                "4",
                "--limit",
                "3",
                "--output_path",
                str(tmp_path),
                "--dry-run",
            ]
        )
        == 0
    )
    import yaml

    spec = yaml.safe_load(capsys.readouterr().out)
    assert spec["model"]["name"] == "tiny"
    assert spec["model"]["dtype"] == "bfloat16"
    assert (spec["utility"]["batch_size"], spec["utility"]["limit"]) == (4, 3)


def test_the_printed_spec_is_a_config_for_the_same_cell(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["run", "--defense", "dlr", "--set", "defense.depth=4", "--seed", "7", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    config = tmp_path / "spec.yaml"
    config.write_text(printed)
    assert main(["run", "--config", str(config), "--dry-run"]) == 0
    assert capsys.readouterr().out == printed


def test_matrix_plan_names_shared_work(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    grid = tmp_path / "grid.yaml"
    grid.write_text(
        "defenses: [none, {name: dlr, depth: 4}]\nattacks: [full, lora]\nseeds: [0, 1]\nbudget: {steps: 3}\n"
    )
    assert main(["matrix", str(grid), "--dry-run"]) == 0
    assert "8 cells; 4 locks and 4 references" in capsys.readouterr().out
    assert main(["matrix", str(grid), "--dry-run", "--json", "--set", "attack.max_steps=2"]) == 0
    cells = json.loads(capsys.readouterr().out)
    assert {(c["attack"]["max_steps"], c["budget"]["steps"]) for c in cells} == {(2, 3)}
    assert len({c["id"] for c in cells}) == 8


def test_list_is_machine_readable(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"models", "defenses", "attacks", "tasks"} == {row["kind"] for row in rows}
    assert {"tiny", "dlr", "lora", "python_source"} <= {row["name"] for row in rows}


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["run", "--help"]])
def test_start_up_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        f"import sys\nfrom harness.cli.main import main\ntry:\n    main({arguments!r})\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'numpy', 'pandas', 'datasets', 'accelerate', 'lm_eval'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
