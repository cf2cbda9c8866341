"""Completion: what may come next, as a shell asks for it, and the scripts of the three shells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli.main import main

argcomplete = pytest.importorskip("argcomplete")


def offered(line: str, tmp_path: Path) -> list[str]:
    """What argcomplete answers to a shell whose line is `line`, the cursor at its end."""
    answer = tmp_path / "answer"
    environment = {**os.environ, "_ARGCOMPLETE": "1", "_ARGCOMPLETE_SHELL": "bash", "_ARGCOMPLETE_IFS": "\n",
                   "COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9",
                   "_ARGCOMPLETE_STDOUT_FILENAME": str(answer)}  # fmt: skip
    code = "import sys; from harness.cli.main import main; main([])\n"
    heavy = "heavy = {'torch', 'transformers', 'numpy'} & set(sys.modules); assert not heavy, heavy"
    exits = f"import atexit, sys\natexit.register(lambda: exec({heavy!r}))\n"
    done = subprocess.run([sys.executable, "-c", exits + code], env=environment, capture_output=True, text=True)
    assert "AssertionError" not in done.stderr
    return [word.strip() for word in answer.read_text().split("\n") if word.strip()]


@pytest.mark.parametrize(("line", "found"), [
    ("harness le", {"leaderboard"}),
    ("harness run --defense sp", {"specdef", "specdef_reparam"}),
    ("harness run --attack stand", {"standard", "standard:quick"}),
    ("harness matrix --attacks full,lo", {"full,lora"}),
    ("harness new ", {"defense", "attack", "task"}),
    ("harness run --defense dlr --set defense.dep", {"defense.depth="}),
])  # fmt: skip
def test_names_and_keys_are_offered_without_torch(line: str, found: set[str], tmp_path: Path) -> None:
    assert found <= set(offered(line, tmp_path))
    assert len(offered(line, tmp_path)) < 8


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_has_its_script(shell: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "_ARGCOMPLETE" in script
    assert "harness" in script
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not here; its script was printed and not read")
    (tmp_path / "script").write_text(script)
    assert subprocess.run([shell, "-n", tmp_path / "script"], check=False).returncode == 0


def test_bash_completes_with_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    if not shutil.which("bash") or not shutil.which("harness"):
        pytest.skip("needs bash, and the command harness on the path")
    assert main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    ask = (f"source {tmp_path / 'script'}; COMP_LINE='harness ver'; COMP_POINT=11; COMP_TYPE=9; "
           "COMP_WORDS=(harness ver); COMP_CWORD=1; _python_argcomplete harness; echo ${COMPREPLY[@]}")  # fmt: skip
    done = subprocess.run(["bash", "-c", ask], text=True, capture_output=True, check=False)
    assert done.stdout.split() == ["verify"], done.stderr


def test_without_argcomplete_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("harness.cli.completion.find_spec", lambda name: None)
    assert main(["completion", "bash"]) == 2
    assert "lockbench[completion]" in capsys.readouterr().err
