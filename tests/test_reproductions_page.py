"""docs/reproductions.md: its tables say what the records say, whatever a cell came to, and who won is not hidden."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from record_factory import make_cell, write_cell

from harness.records.sections import Flag

ROOT = Path(__file__).parents[1]
FULL: dict[str, Any] = {"name": "full", "learning_rate": 0.1}


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import reproductions

    monkeypatch.setattr(reproductions, "RESULTS", tmp_path)
    return reproductions


def rows(tables: Any, out: Path, *cells: Any) -> dict[str, list[str]]:
    """Fields of the rows by the attack's name."""
    for cell in cells:
        write_cell(out / "made_up", cell)
    table = tables.Reproduction(folder="made_up", said=lambda record: ("0.80", "0.10"))()
    found = [[field.strip() for field in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {fields[2]: fields for fields in found}


def test_what_was_not_run_says_so(tables: Any) -> None:
    assert all(table() == "not run" for table in tables.TABLES.values())


def test_the_strongest_attack_is_bold_and_an_own_weak_reference_does_not_count(tables: Any, tmp_path: Path) -> None:
    weak = make_cell(attack={**FULL, "learning_rate": 1e-5}, recovery=1.0, gain=0.05)
    found = rows(tables, tmp_path, make_cell(attack=FULL, recovery=0.3, gain=0.5), weak,
                 make_cell(attack={"name": "undo_specdef", "learning_rate": 1e-3}, recovery=0.9, gain=0.5))  # fmt: skip
    assert found["undo\\_specdef 0.001"][7].startswith("**0.9")
    assert found["full 0.1"][7].startswith("0.3")
    assert found["full 1e-05"][7].startswith("0.1"), "against the best reference, not against its own"
    assert found["full 0.1"][3:5] == ["0.80", "0.10"]
    assert found["-"][1] == "pairs (utility)"


def test_no_outcome_is_left_out(tables: Any, tmp_path: Path) -> None:
    error = Flag(flag="loss_not_falling", severity="error", detail="it rose")
    owner = make_cell(attack={"name": "authorised", "learning_rate": 0.1}, knowledge="secret", recovery=0.95)
    found = rows(tables, tmp_path, make_cell(attack=FULL, recovery=0.3, attacked_utility=0.6), owner,
                 make_cell(attack={**FULL, "learning_rate": 1.0}, flags=(error,)),
                 make_cell(attack={**FULL, "learning_rate": 2.0}, status="failed", reason="diverged"))  # fmt: skip
    assert found["full 1"][7].startswith("(0.5")
    assert found["full 1"][7].endswith(", not counted: loss\\_not\\_falling)")
    assert found["full 2"][7] == "(not counted: failed)"
    assert found["full 0.1"][7].endswith(", collapsed")
    assert found["authorised 0.1"][7].startswith("(0.9")
    assert found["authorised 0.1"][7].endswith(", owner)")


@pytest.mark.parametrize("path", sorted(ROOT.glob("reproductions/*/*.yaml")), ids=lambda path: path.stem)
def test_every_spec_has_a_table_and_every_table_its_command(path: Path, tables: Any) -> None:
    page = (ROOT / "docs" / "reproductions.md").read_text()
    if not path.stem.endswith("_paper"):
        assert f"{path.parent.name}_{path.stem}" in tables.TABLES
        assert f"harness matrix reproductions/{path.parent.name}/{path.stem}.yaml" in page
