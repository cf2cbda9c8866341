"""The documents: every command in them parses, every link leads somewhere, every generated part is current."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

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
