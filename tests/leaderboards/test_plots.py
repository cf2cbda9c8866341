from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from record_factory import make_cell, write_cell

from harness.bill import Bill
from harness.cli.main import main
from harness.errors import Unavailable
from harness.records.record import Record
from harness.search.curve import Searches, Trial, curve
from leaderboards.load import load_results
from leaderboards.plots import board_figure, heat_map, search_figure, trajectory_figure


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for defense, recovery in (("none", 1.0), ("dlr$x_1", 0.4)):
        write_cell(tmp_path, make_cell(defense=defense, recovery=recovery))
    write_cell(tmp_path, make_cell(defense="none", attack="full_$", status="out_of_memory"))
    return tmp_path


def records(folder: Path) -> list[Record]:
    return [cell.record for cell in load_results(folder).cells]


@pytest.mark.parametrize("draw", [board_figure, heat_map])
@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_figures_show_names_and_are_the_same_each_time(results: Path, draw: object, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    one, two = results / f"one.{suffix}", results / f"two.{suffix}"
    for output in (one, two):
        draw(records(results), output)  # type: ignore[operator]
    assert one.stat().st_size > 2000
    if suffix == "svg":
        for text in ("dlr$x_1", "out of memory"):
            assert text in one.read_text()
    assert one.read_bytes() == two.read_bytes()


def test_trajectories_are_drawn_for_attack_and_reference(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    trajectory_figure([make_cell().record, make_cell(defense="none").record], tmp_path / "t.svg")
    assert "lora, seed 0" in (tmp_path / "t.svg").read_text()


def test_searches_are_drawn_for_attack_and_reference(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    trials = [Trial(number=i, outcome="failed" if score is None else "complete", params={}, score=score, bill=Bill())
              for i, score in enumerate((None, -2.0, -3.0, -1.0))]  # fmt: skip
    searches = Searches(attacked=curve(trials, {}), reference=curve(trials[:1], {}))
    searched = make_cell().record.model_copy(update={"search": searches})
    search_figure([searched, make_cell(defense="none").record], tmp_path / "s.svg")
    drawn = (tmp_path / "s.svg").read_text()
    assert "lora, seed 0" in drawn
    assert "none, lora" not in drawn


def test_without_matplotlib_the_extra_is_named(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(Unavailable, match="report"):
        board_figure(records(results), results / "x.png")


def test_plot_writes_every_figure_of_every_board_in_both_formats(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    write_cell(results, make_cell(task="facts"))
    out = tmp_path / "plots"
    assert main(["plot", str(results), "-o", str(out)]) == 0
    kinds = ("board", "heat", "trajectory")
    assert {path.name for path in out.iterdir()} == {f"{kind}-{n}.{end}" for kind in kinds for n in (1, 2)
                                                     for end in ("png", "svg")}  # fmt: skip
    assert "tiny, facts, steps=100" in capsys.readouterr().out
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert main(["plot", str(results), "-o", str(out)]) == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize("options", [["--kinds", "bord"], ["--formats", "gif"], ["-o", "{file}"]])
def test_plot_refuses_what_it_cannot_draw(results: Path, options: list[str], capsys: Any) -> None:
    (results / "file").write_text("")
    assert main(["plot", str(results), *(word.format(file=results / "file") for word in options)]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
