"""Tables on a narrow terminal: nothing is lost, nothing is too wide, and what is piped is left alone."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tabulate import tabulate

from harness.cli.main import main
from harness.cli.terminal import fitted, wrapped

CELL = st.text(alphabet="abcxyz0123456789.", min_size=1, max_size=18)


@given(st.integers(1, 5), st.integers(2, 12), st.data())
def test_a_table_too_wide_is_turned_and_nothing_is_lost(rows: int, columns: int, data: st.DataObject) -> None:
    cells = [[data.draw(CELL) for _ in range(columns)] for _ in range(rows)]
    names = [f"c{number}" for number in range(columns)]
    text = tabulate(cells, names, tablefmt="simple", disable_numparse=True)
    found = fitted(text, 40)
    if max(map(len, text.split("\n"))) <= 40:
        assert found == text
        return
    assert max(map(len, found.split("\n"))) <= 40
    for number, name in enumerate(names):
        told = [word for line in found.split("\n") if re.match(rf"{name}( |$)", line) for word in line.split()[1:]]
        assert told == [row[number] for row in cells]


@given(st.text(alphabet=st.characters(codec="ascii", min_codepoint=32), max_size=300), st.integers(20, 100))
def test_long_lines_wrap_and_keep_their_words(line: str, columns: int) -> None:
    found = fitted(f"{line}\n\n", columns)
    assert all(len(part) <= columns for part in found.split("\n"))
    assert "".join(found.split()) == "".join(line.split())


def test_the_leaderboard_and_the_lists_fit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for command in (["list"], ["list", "defenses", "dlr"], ["doctor"]):
        assert main(command) == 0
        assert max(map(len, capsys.readouterr().out.split("\n"))) <= (120 if command == ["doctor"] else 80), command


def test_what_is_piped_is_one_line_a_row(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert main(["list", "attacks"]) == 0
    lines = capsys.readouterr().out.strip().split("\n")
    assert main(["list", "attacks", "--json"]) == 0
    assert len(lines) == len(json.loads(capsys.readouterr().out)) + 2
    assert wrapped([["a", "b " * 200]], 1) == [["a", "b " * 200]]


def test_one_plugin_shows_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "defenses", "external"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"defense\.path +\(required\) +The locked checkpoint", said)
    assert main(["list", "defenses", "dlrr"]) == 2
    assert "Did you mean 'dlr'" in capsys.readouterr().err


def test_every_help_is_readable_at_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from harness.cli.main import VERBS

    monkeypatch.setenv("COLUMNS", "80")
    for verb in VERBS:
        with pytest.raises(SystemExit):
            main([verb, "--help"])
        wide = [line for line in capsys.readouterr().out.split("\n") if len(line) > 80]
        assert wide == [], verb


def test_doctor_names_machine_versions_and_what_each_part_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    from harness.probes import PROBES, USES

    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("lockbench", "Python", "torch", "usable", "GiB free", *PROBES))
    assert main(["doctor", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert set(rows) == set(PROBES)
    assert all(row["ok"] or row["reason"] for row in rows.values())
    assert [name for name, row in rows.items() if not row["needed_by"] and name not in USES] == []
