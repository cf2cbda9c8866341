"""docs/theory.md: what its text claims of the committed numbers, and figures that are the same each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import theory_tables

    return theory_tables


def test_steps_stay_within_their_bounds(tables: Any) -> None:
    for row in tables.load("quadratic"):
        assert 0.85 * row["gradient_descent_bound"] < row["gradient_descent"] <= row["gradient_descent_bound"]
        assert 0.85 * row["accelerated_bound"] < row["accelerated"] <= row["accelerated_bound"]
        assert row["newton"] == row["jacobi_aligned"] == 1
        if row["spectrum"] == "outliers":
            assert row["conjugate_gradients"] < 25
            assert row["deflated"] < 65


def test_no_bound_is_above_the_truth(tables: Any) -> None:
    for row in tables.load("bounds"):
        for key, _ in tables.FORMS:
            for bound, true in zip(row[key], row["true"], strict=True):
                assert bound is None or bound <= true, (row["network"], row["weight"], row["factor"], key)


def test_kept_bytes_are_the_formula(tables: Any) -> None:
    for row in tables.load("kept"):
        assert row["kept"] == row["formula"]
        if row["depth"]:
            assert row["checkpointed_kept"] == row["checkpointed_formula"]
            assert 0 < row["checkpointed_peak"] - row["checkpointed_floor"] < 512


def test_adam_is_slowed_down_and_scaling_back_undoes_it(tables: Any) -> None:
    rows = tables.load("adam")
    plain = {(row["network"], row["factor"]): row["steps"] for row in rows if row["rate"] == 1e-3 and not row["undo"]}
    for network in {name for name, _ in plain}:
        assert all(plain[network, 1.0])
        assert not any(plain[network, 100.0])
        undone = [row["steps"] for row in rows if row["network"] == network and row["undo"]]
        assert all(steps == undone[0] and all(steps) for steps in undone)


def test_masks_overlap_more_than_by_chance_and_less_than_the_rule_asks(tables: Any) -> None:
    for row in tables.load("masks"):
        assert row["independent"] < row["iou"] < 0.99
        assert row["zeros"] == 0


def test_figures_are_the_same_each_time_and_on_the_page(tables: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    import theory_figures

    for folder in ("one", "two"):
        theory_figures.draw(tmp_path / folder)
    for name in theory_figures.FIGURES_BY_NAME:
        texts = [(tmp_path / folder / f"{name}.svg").read_text() for folder in ("one", "two")]
        assert texts[0] == texts[1]
        assert (ROOT / "docs" / "figures" / f"{name}.svg").is_file()
        assert f"figures/{name}.svg" in (ROOT / "docs" / "theory.md").read_text()
