"""A lock is ranked under a suite: it expands to cells, cheapest first, and its worst case is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from record_factory import make_cell, write_cell

from harness import registry
from harness.cli.main import main
from harness.errors import UsageError
from harness.planning.grid import plan
from harness.plugins import Knowledge
from harness.suites import expand

STANDARD = registry.suites().get("standard")


def names(specs: list[Any]) -> list[str]:
    return [spec.attack["name"] for spec in specs]


def test_the_standard_suite_is_known_attacks_that_may_rank() -> None:
    assert len(set(STANDARD.attacks)) == len(STANDARD.attacks) > len(STANDARD.quick)
    listed = [*STANDARD.attacks, *STANDARD.quick, *(name for undo in STANDARD.undo.values() for name in undo)]
    assert set(listed) == set(STANDARD.attacks) <= set(registry.attacks().names())
    assert all(registry.attacks().get(name).knowledge is not Knowledge.SECRET for name in listed)
    assert set(STANDARD.undo) <= set(registry.defenses().names())


def test_it_expands_in_order_and_has_no_parameters() -> None:
    specs = plan({}, {"attack": "standard", "defense": "dlr"})
    assert names(specs) == [name for name in STANDARD.attacks if "causal_lm" in registry.attacks().get(name).kinds]
    for spec in specs:
        defaults = registry.attacks().get(spec.attack["name"]).Settings().model_dump(mode="json")
        assert spec.attack == {"name": spec.attack["name"], **defaults}


def test_quick_is_a_few_and_what_undoes_the_lock() -> None:
    quick = list(STANDARD.quick)
    assert names(plan({}, {"attack": "standard:quick"})) == quick
    grid = {"defenses": ["none", {"name": "dlr", "depth": 4}], "attacks": ["standard:quick", "frozen_mlp"]}
    assert names(plan(grid, {})) == [*quick, "frozen_mlp", *quick, "redistill", "frozen_mlp"]


def test_settings_go_to_every_attack_and_each_must_know_them() -> None:
    specs = plan({}, {"attack": {"name": "standard:quick", "max_steps": 4}})
    assert {spec.attack["max_steps"] for spec in specs} == {4}
    with pytest.raises(UsageError, match="unknown setting of attack 'segments'"):
        plan({}, {"attack": {"name": "standard:quick", "segments": 4}})


def test_what_is_no_suite_stays_as_it_is() -> None:
    for attack in ("lora", {"name": "lora", "r": 4}, "nothing"):
        assert expand({"attack": attack, "seed": 3}) == [{"attack": attack, "seed": 3}]
    assert expand({}) == [{}]


@pytest.mark.parametrize(("attack", "message"), [
    ("standard:fast", "unknown part of a suite 'fast'"), ("standrad", "unknown attack 'standrad'"),
    ("standard:", "unknown attack 'standard:'"),
])  # fmt: skip
def test_a_wrong_name_is_one_line(attack: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--attack", attack, "--dry-run"]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert len(said.splitlines()) == 1


def test_the_same_cell_twice_is_refused() -> None:
    with pytest.raises(UsageError, match=r"the same cell twice: .* / full /"):
        plan({"attacks": ["standard:quick", "full"]}, {})


OUTCOMES: dict[str, dict[str, Any]] = {
    "lora": {"recovery": 0.4}, "full": {"recovery": 0.9}, "redistill": {"recovery": 1.0, "knowledge": "secret"},
    "checkpointing": {"status": "unavailable", "reason": "needs something"},
}  # fmt: skip


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells end as `OUTCOMES` says instead of being run."""

    def run_cell(spec: Any, *, out: Path, workshop: Any) -> Any:
        name = spec.attack["name"]
        cell = make_cell(attack=name, **OUTCOMES[name])
        write_cell(out, cell)
        return cell.record

    monkeypatch.setattr("harness.cell.run_cell", run_cell)
    monkeypatch.setattr("harness.cli.options.workshop", lambda *_: None)


COMMAND = ["run", "--defense", "dlr", "--attack", "standard:quick", "--quiet"]


@pytest.mark.usefixtures("made_up")
def test_run_prints_a_table_a_cell_and_names_the_worst_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_cell(tmp_path, make_cell(attack="elsewhere", recovery=1.2))  # another run's: not of this suite
    assert main([*COMMAND, "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.count("record: ") == 4
    cells, worst = said.split("worst case over the suite:")
    places = [cells.index(f" / {name} / ") for name in (*STANDARD.quick, "redistill")]
    assert places == sorted(places)
    ranking = next(line for line in worst.splitlines() if " dlr " in line)
    assert " full " in ranking
    assert "not counted: redistill" in worst
    assert "knows the lock's secret" in worst
    assert "not counted: checkpointing" in worst
    assert "unavailable: needs something" in worst
    assert "elsewhere" not in worst


@pytest.mark.usefixtures("made_up")
def test_json_is_a_list_of_records_and_a_failed_cell_is_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OUTCOMES, "lora", {"status": "failed", "reason": "boom"})
    assert main([*COMMAND, "--json", "--out", str(tmp_path)]) == 1
    assert [record["spec"]["attack"]["name"] for record in json.loads(capsys.readouterr().out)] == [
        *STANDARD.quick, "redistill"]  # fmt: skip


def test_a_dry_run_prints_every_spec(capsys: pytest.CaptureFixture[str]) -> None:
    import yaml

    assert main([*COMMAND, "--dry-run"]) == 0
    specs = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [spec["attack"]["name"] for spec in specs] == [*STANDARD.quick, "redistill"]
