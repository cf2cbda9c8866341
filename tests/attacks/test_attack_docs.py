"""The notes on the attacks are complete and say what the data says."""

from __future__ import annotations

import importlib
import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
HEADINGS = ("**Source.**", "**What it does.**", "**What it knows.**", "**Differences", "**Expected strength.**")
NAMES = ["authorised", "checkpointing", "distil_student", "frozen_mlp", "full", "full_8bit", "full_trainer",
         "linear_probe", "lora", "mezo", "offload", "partial_depth", "pretrain_first", "qlora", "redistill", "relative",
         "undo_all", "undo_pmp", "undo_specdef", "undo_specdef_reparam", "undo_until_flat", "until_flat"]  # fmt: skip
pytestmark = pytest.mark.skipif(not (ROOT / "benchmarks").exists(), reason="needs a checkout")


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    sys.modules.pop("attack_defaults", None)
    return importlib.import_module("attack_defaults")


def test_no_attack_is_forgotten() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["lockbench.attacks"]
    assert sorted(declared) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_attack_has_its_page(name: str) -> None:
    page = (ROOT / "docs" / "attacks" / f"{name}.md").read_text()
    assert [heading for heading in HEADINGS if heading not in page] == []
    assert f"]({name}.md)" in (ROOT / "docs" / "attacks" / "README.md").read_text()


def test_the_tables_are_those_of_the_data(sweep: Any) -> None:
    page = (ROOT / "docs" / "attacks" / "README.md").read_text()
    assert sweep.readme(page) == page


@pytest.mark.parametrize("name", NAMES)
def test_no_default_rate_flatters_a_lock(name: str, sweep: Any) -> None:
    """A rate that the sweep found better must be the default: on the locked model, or on the base if the lock goes."""
    from attacks.full import UndoneSettings
    from harness import registry

    if "causal_lm" not in registry.attacks().get(name).kinds:
        pytest.skip("for classifiers only, and the sweep is of language models")
    kind = registry.attacks().get(name).Settings
    family = name if name in sweep.RATES else "full"
    target = "base" if issubclass(kind, UndoneSettings) else "locked"
    best = sweep.best_rate(json.loads(sweep.DATA.read_text())["rows"], family, target)
    if best is None:
        pytest.skip(f"fewer than two rates were tried for {family} on both tasks")
    assert kind().learning_rate == best


def test_the_tables_of_the_trials_are_those_of_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    trials = importlib.import_module("attack_trials")
    for page, text in trials.pages(json.loads(trials.DATA.read_text())).items():
        assert page.read_text() == text
