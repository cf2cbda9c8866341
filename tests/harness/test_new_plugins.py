"""Packages of third parties in an environment of their own: installed, listed, run, and passing the conformance kit.

One is tests/plugin_package, the others were freshly written by `harness new`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pytest

from harness.cli.main import main
from harness.scaffold import KINDS, render

PACKAGE = Path(__file__).parents[1] / "plugin_package"
SHORT = ["--limit=20", "--set=utility.perplexity_tokens=1500", "--set=replicates=1", "--set=attack.max_steps=4",
         "--set=attack.eval_points=1", "--set=attack.per_device_train_batch_size=2"]  # fmt: skip


class Environment:
    """A fresh virtual environment that sees this one's packages, and packages installed into it."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder / "venv", with_pip=False, system_site_packages=True)
        self.folder, self.bin = folder, folder / "venv" / "bin"
        site = next((folder / "venv").glob("lib/python*/site-packages"))
        ours = sysconfig.get_paths()["purelib"]
        (site / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")  # follows an editable install too

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "HARNESS_CACHE": str(self.folder / "cache"), "HF_HUB_OFFLINE": "1"}
        environment.pop("PYTHONPATH", None)
        return subprocess.run([self.bin / "python", *map(str, arguments)], cwd=self.folder, env=environment, text=True,
                              capture_output=True, check=False)  # fmt: skip

    def harness(self, *arguments: object) -> str:
        done = self.run("-m", "harness.cli.main", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("third_party")
    environment = Environment(folder)
    shutil.copytree(PACKAGE, folder / "example")
    for kind in KINDS:
        assert main(["new", kind, f"my_{kind}", "-o", str(folder / f"my-{kind}")]) == 0
    packages = [folder / "example", *(folder / f"my-{kind}" for kind in KINDS)]
    subprocess.run([sys.executable, "-m", "pip", "--python", environment.bin / "python", "install", "--quiet",
                    "--no-deps", "--no-build-isolation", "--disable-pip-version-check", *packages],
                   check=True, env={**os.environ, "PIP_CONSTRAINT": ""})  # fmt: skip
    return environment


@pytest.mark.slow
def test_they_are_listed_with_the_package_they_come_from(place: Environment) -> None:
    rows: list[dict[str, Any]] = json.loads(place.harness("list", "--json"))
    found = {(row["kind"], row["name"]): row["origin"] for row in rows}
    assert found["defenses", "scaled"] == found["attacks", "embeddings_only"] == "lockbench-example 0.0.1"
    for kind in KINDS:
        assert found[f"{kind}s", f"my_{kind}"] == f"lockbench-my-{kind} 0.1.0"


@pytest.mark.slow
def test_they_run_together(place: Environment) -> None:
    names = ["--defense=scaled+my_defense", "--attack=my_attack", "--task=my_task"]
    record = json.loads(place.harness("run", *names, *SHORT, "--json", "--quiet"))
    assert record["status"] == "complete"
    assert record["provenance"]["weights"]["locked"] != record["provenance"]["weights"]["base"]
    assert [flag for flag in record["validity"] if flag["severity"] == "error"] == []


@pytest.mark.slow
def test_they_pass_their_own_tests(place: Environment) -> None:
    folders = [place.folder / name / "tests" for name in ("example", *(f"my-{kind}" for kind in KINDS))]
    done = place.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", *folders)
    assert done.returncode == 0, done.stdout
    assert "failed" not in done.stdout
    assert int(done.stdout.split(" passed")[0].split()[-1]) > 50


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_python_and_leaves_nothing_to_fill_in(kind: str) -> None:
    found = render(kind, "rot13")
    for path, text in found.items():
        assert "$" not in text, path
        if path.endswith(".py"):
            compile(text, path, "exec")
    assert 'rot13 = "lockbench_rot13.rot13:Rot13"' in found["pyproject.toml"]
    assert len(found["tests/test_rot13.py"].splitlines()) < 20


@pytest.mark.parametrize(("arguments", "reason"), [
    (["attack", "lora"], "already provided by lockbench"),
    (["defense", "My-Lock"], "lower-case letters, digits and underscores"),
    (["task", "../x"], "lower-case letters, digits and underscores"),
    (["task", "class"], "no word of Python"),
    (["attack", "fine", "-o", "."], "is not an empty folder"),
])  # fmt: skip
def test_bad_names_and_places_are_one_line(
    arguments: list[str],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").touch()
    assert main(["new", *arguments]) == 2
    said = capsys.readouterr().err
    assert reason in said
    assert len(said.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
