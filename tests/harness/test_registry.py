"""Plug-ins by entry point: an installed package appears, collisions are refused, a broken one is skipped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import registry
from harness.errors import UsageError
from harness.plugins import Attack, Defense
from harness.registry import Registry

PACKAGE = Path(__file__).parents[1] / "plugin_package"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example package, really installed by pip into a folder of its own."""
    import shutil

    source = tmp_path_factory.mktemp("source") / "package"
    shutil.copytree(PACKAGE, source)
    target = tmp_path_factory.mktemp("site")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--disable-pip-version-check",
            "--target",
            target,
            source,
        ],
        check=True,
    )
    return target


def listed(site: Path, *arguments: str) -> tuple[Any, str]:
    """`harness list ... --json` in a process that sees the installed package."""
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli.main", "list", *arguments, "--json"],
        check=True,
        text=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(site)},
    )
    return json.loads(done.stdout), done.stderr


def test_a_third_partys_package_is_listed_with_its_origin(installed: Path) -> None:
    rows, _ = listed(installed)
    found = {(row["kind"], row["name"]): row for row in rows}
    assert found["defenses", "scaled"]["origin"] == "lockbench-example 0.0.1"
    assert found["attacks", "embeddings_only"]["settings"]["learning_rate"]["description"] == "Peak learning rate."
    assert found["defenses", "none"]["origin"].startswith("lockbench ")


def test_a_broken_plugin_warns_and_is_skipped(installed: Path) -> None:
    rows, warned = listed(installed, "defenses")
    assert "broken" not in {row["name"] for row in rows}
    assert "'broken'" in warned
    assert "lockbench-example 0.0.1" in warned


def test_every_builtin_loads_and_documents_itself() -> None:
    for plugins in (registry.defenses(), registry.attacks(), registry.tasks()):
        assert plugins.names()
        for name in plugins.names():
            plugin = plugins.get(name)
            assert len(plugin.summary()) > 10, name
            for field, info in plugin.Settings.model_fields.items():
                assert info.description, f"{name}.{field} has no doc line"


def test_unknown_name_gets_the_closest_and_all() -> None:
    with pytest.raises(UsageError, match=r"unknown attack 'loar'\. Did you mean 'lora'\? Allowed: .*full"):
        registry.attacks().get("loar")


class Nothing(Defense):
    """A lock that does nothing, for these tests."""

    def lock(self, base: Any, context: Any) -> Any:
        raise AssertionError("never called")


def test_in_process_registration_refuses_taken_names_and_other_kinds() -> None:
    plugins: Registry[Any] = Registry("defense", Defense, "defenses")
    plugins.add("nothing", Nothing)
    assert plugins.get("nothing") is Nothing
    assert plugins.origin("nothing") == "this process"
    with pytest.raises(UsageError, match="already provided by"):
        plugins.add("dlr", Nothing)
    with pytest.raises(UsageError, match="is not a Attack"):
        Registry("attack", Attack, "attacks").add("nothing", Nothing)


def test_two_distributions_with_one_name_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    points = [EntryPoint("dlr", "defenses.dlr:DLRLock", "g"), EntryPoint("dlr", "elsewhere:Other", "g")]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    with pytest.raises(UsageError, match=r"'dlr' is provided twice: .*defenses\.dlr:DLRLock.*elsewhere:Other"):
        Registry("defense", Defense, "defenses").names()
