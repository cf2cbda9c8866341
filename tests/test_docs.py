"""The documents: their commands work, their links lead somewhere, their generated parts are current.

Every `harness` command is parsed and its names looked up. Run for real: list, doctor, completion, new, import,
leaderboard, verify. `run` and `matrix`, which take minutes, run with `--dry-run`: all is resolved, all input checked,
no model trained. `lock`, `evaluate`, `card`, `verify --rerun`, and with them the first `run` and `matrix`, run for real
on a small model with small settings behind them. `fetch` would use the network.
"""

from __future__ import annotations

import doctest
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")] + sorted(
    ROOT.glob("docs/**/*.md")
)


def commands() -> list[tuple[str, str]]:
    """Every `harness ...` line of every code block."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```(?:sh|console)?\n(.*?)```", page.read_text(), re.DOTALL):
            joined = block.replace("\\\n", " ")
            found += [(page.name, line.strip()) for line in joined.splitlines() if line.strip().startswith("harness ")]
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: a model of theirs, a locked one, and results."""
    from harness.testing import byte_tokenizer, random_llama

    folder = tmp_path_factory.mktemp("user")
    for name, seed in (("my-llama", 0), ("my-llama-locked", 1)):
        random_llama(seed=seed).save_pretrained(folder / name)
        byte_tokenizer().save_pretrained(folder / name)
    shutil.copytree(folder / "my-llama", folder / "tiny-locked")
    for copy in ("results", "results-a", "results-b", "submission"):
        shutil.copytree(ROOT / "leaderboards" / "results" / "facts", folder / copy)
    (folder / "grid.yaml").write_text("defenses: [none, dlr]\nattacks: [lora]\n")
    for grid in (ROOT / "leaderboards" / "results").glob("*/*.yaml"):
        copied = folder / grid.relative_to(ROOT)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(grid, copied)
    (folder / "data").mkdir()
    return folder


@pytest.mark.parametrize("command", sorted({shlex.join(shlex.split(said, comments=True)) for _, said in commands()}))
def test_every_command_works(
    command: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, request: pytest.FixtureRequest
) -> None:
    from harness import registry
    from harness.cli import checks, options
    from harness.cli.main import _dashes, main, parser
    from harness.layers import from_process
    from harness.probes import check

    monkeypatch.chdir(place)
    monkeypatch.setenv("HARNESS_CACHE", str(place / "cache"))
    words = shlex.split(command)[1:]
    missing = [name for name in ("wandb", "tensorboard", "mlflow", "argcomplete", "optuna") if check(name)]
    if any(name in command or (name, words[0]) == ("argcomplete", "completion") for name in missing):
        pytest.skip(f"not installed: {', '.join(missing)}")
    task = words[words.index("--task") + 1] if "--task" in words else ""
    if task and registry.tasks().get(task).needs_pack:
        monkeypatch.setenv("HARNESS_DATA", str(request.getfixturevalue("data_dir")))
    if words[0] in ("lock", "evaluate"):
        args = parser().parse_args(_dashes(words))
        spec = from_process(args.config, options.raw_spec(args), args.assignments)
        checks.check_inputs([spec], None, lock=words[0] == "lock", attack=False)
        return
    assert words[0] != "fetch"
    if words[0] == "card" or "--rerun" in words:
        assert parser().parse_args(_dashes(words)).verb == words[0]  # `test_what_takes_long_works_on_a_small_model`
        return
    if "tar.yaml" in command:  # what `import` writes, and `run` reads
        (place / "tar.yaml").write_text("{model: ./my-llama, defense: {name: external, path: ./my-llama-locked}}")
        if words[0] == "import":
            (place / "tar.yaml").unlink()
    before = sorted(path for path in place.rglob("*") if "cache" not in path.parts)
    assert main([*words, *(["--dry-run"] if words[0] in ("run", "matrix") else [])]) == 0
    assert capsys.readouterr().out or any(place.glob("board.*"))
    if words[0] in ("run", "matrix", "list", "doctor", "verify"):
        assert sorted(path for path in place.rglob("*") if "cache" not in path.parts) == before


@pytest.mark.slow
def test_what_takes_long_works_on_a_small_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The documents' lines, in the order in which a user comes to them, each with smaller settings behind it."""
    from cell_cases import SHORT

    from harness.cli.main import main
    from harness.testing import byte_tokenizer, random_llama

    random_llama().save_pretrained(tmp_path / "small")
    byte_tokenizer().save_pretrained(tmp_path / "small")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    lock = [word for setting in ("depth=4", "module_steps=2", "polish_steps=2", "generated_tokens=512", "block_size=32",
                                 "self_generated=0.0") for word in ("--set", f"defense.{setting}")]  # fmt: skip
    said = {shlex.join(shlex.split(line, comments=True)) for _, line in commands()}

    def works(line: str, *more: str) -> str:
        assert line in said
        words = ["./small" if word == "tiny" else word for word in shlex.split(line)[1:]]
        assert main([*words, *more]) == 0, line
        return capsys.readouterr().out

    works("harness lock --defense dlr --model tiny -o tiny-locked", *lock)
    assert "minimal_pairs" in works("harness evaluate --model ./tiny-locked --tasks minimal_pairs", "--limit", "4",
                                    "--set", "utility.perplexity_tokens=500")  # fmt: skip
    assert "recovery" in works("harness run --defense dlr --attack lora", "--model", "./small", *lock, *SHORT)
    works("harness card tiny-locked --results results --write")
    assert "lora" in (tmp_path / "tiny-locked" / "README.md").read_text()
    (tmp_path / "grid.yaml").write_text("model: ./small\ndefenses: [none]\nattacks: [lora, full]\n")
    assert "lora" in works("harness matrix grid.yaml --workers 4 --timeout 3600", *SHORT)
    (tmp_path / "results").rename(tmp_path / "submission")
    (tmp_path / "data").mkdir()
    works("harness verify submission --data-dir data --rerun 2")


def test_the_examples_in_the_api_page_are_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    failed, tried = doctest.testfile(str(ROOT / "docs" / "api.md"), module_relative=False)
    assert failed == 0
    assert tried > 3


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    import subprocess
    import sys

    pytest.importorskip("material")
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
                          cwd=ROOT, text=True, capture_output=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "recovery" in (tmp_path / "site" / "guide" / "concepts" / "index.html").read_text()
    away = re.findall(
        r'<(?:link|script)[^>]+(?:href|src)="(https?://[^"]+)', (tmp_path / "site" / "index.html").read_text()
    )
    assert away == [], "the site fetches nothing from elsewhere"


@pytest.mark.parametrize(("page", "command"), commands())
def test_every_command_parses_and_names_what_exists(page: str, command: str) -> None:
    from harness import registry
    from harness.cli.main import _dashes, parser

    args = parser().parse_args(_dashes(shlex.split(command, comments=True)[1:]))
    assert args.verb
    for option, plugins in (
        ("defense", registry.defenses()),
        ("attack", registry.attacks()),
        ("task", registry.tasks()),
    ):
        grid = getattr(args, f"{option}s", None) if args.verb == "matrix" else None
        named = [getattr(args, option, None), *(grid or "").split(",")]
        suites = [f"{name}{part}" for name in registry.suites().names() for part in ("", ":quick")]
        known = [*plugins.names(), *(suites if option == "attack" else ())]
        parts = [part for name in named if name for part in (name.split("+") if option == "defense" else [name])]
        assert all(part in known for part in parts), command


def test_there_are_commands() -> None:
    assert len(commands()) > 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readme_has_the_two_commands_that_the_gate_runs() -> None:
    gate = (ROOT / ".ci" / "run").read_text()
    assert "for name in main test" in gate
    blocks = dict(re.findall(r"<!-- command: (\w+) -->\n```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL))
    assert "harness run --defense dlr --attack lora" in blocks["main"]
    assert "pytest" in blocks["test"]


def test_the_version_is_the_same_everywhere() -> None:
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert f"version: {version[1]}" in (ROOT / "CITATION.cff").read_text()
    assert f"## {version[1]}" in (ROOT / "CHANGELOG.md").read_text()


def test_every_dependency_is_pinned() -> None:
    import tomllib

    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(d for group in project["optional-dependencies"].values() for d in group)]
    pins = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    for text in wanted:
        name = Requirement(text).name.lower()
        assert name in pins | {"lockbench", "setuptools"}, f"{name} is not pinned"


def test_generated_parts_are_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import documents

    assert documents.stale() == {}


@pytest.mark.parametrize("folder", sorted(path.name for path in (ROOT / "leaderboards" / "results").iterdir()))
def test_published_records_verify(folder: str) -> None:
    from leaderboards.verify import verify

    assert verify(ROOT / "leaderboards" / "results" / folder) == []
