from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from pathlib import Path

import pytest
from hostile import STRINGS
from hypothesis import example, given, settings
from hypothesis import strategies as st
from record_factory import make_cell, write_cell

from harness.errors import UsageError
from harness.records.sections import Flag
from harness.settings import Settings
from leaderboards.board import leaderboard
from leaderboards.formats import FORMATS, Table, render

NASTY = list(STRINGS.values())
texts = st.text(max_size=20) | st.sampled_from(NASTY)
rows = st.lists(st.tuples(texts, texts), min_size=1, max_size=4)


def table(values: list[tuple[str, str]]) -> Table:
    flags = [Flag(flag=one, severity="info", detail=two) for one, two in values]
    return Table(flags, [("flag", lambda row: row.flag), ("detail", lambda row: row.detail)])


@settings(max_examples=150)
@given(rows)
@example([(text, text) for text in NASTY])
def test_people_see_one_line_a_row_without_control_characters(values: list[tuple[str, str]]) -> None:
    for kind, extra in (("table", 2), ("markdown", 2), ("latex", 6)):
        text = render(table(values), kind)
        assert len(text.split("\n")) == len(values) + extra
        assert not [char for char in text if unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp") and char != "\n"]


@settings(max_examples=150)
@given(rows)
@example([(text, text) for text in NASTY])
def test_markdown_text_stays_text(values: list[tuple[str, str]]) -> None:
    for line in render(table(values), "markdown").split("\n")[2:]:
        bare = re.sub(r"\\[\\`*_\[\]~|$]|&#[0-9]+;", "", line)
        assert bare.count("|") == 3
        assert not set(bare) & set("\\`*_[]<>~$&@")


@settings(max_examples=150)
@given(rows)
@example([(text, text) for text in NASTY])
def test_latex_text_stays_text(values: list[tuple[str, str]]) -> None:
    for line in render(table(values), "latex").split("\n")[4:-2]:
        assert line.endswith(r"\\")
        bare = re.sub(r"\\text[a-z]+\{\}|\\[{}$&%#_]", "", line[:-2])
        assert bare.count("&") == 1
        assert not set(bare) & set("\\{}$%#_~^<>|")


@settings(max_examples=150)
@given(rows)
@example([(text, text) for text in NASTY])
def test_csv_reads_back_and_starts_no_formula(values: list[tuple[str, str]]) -> None:
    read = list(csv.DictReader(io.StringIO(render(table(values), "csv"))))
    assert len(read) == len(values)
    for line, (one, two) in zip(read, values, strict=True):
        for cell, text in ((line["flag"], one), (line["detail"], two)):
            assert cell[:1] not in ("=", "+", "-", "@")
            if text.isascii() and text.isprintable() and text.lstrip()[:1] not in ("=", "+", "-", "@"):
                assert cell == text


@given(rows)
def test_json_is_the_rows_themselves(values: list[tuple[str, str]]) -> None:
    found = json.loads(render(table(values), "json"), parse_constant=pytest.fail)
    assert [(row["flag"], row["detail"]) for row in found] == values


def test_a_long_name_does_not_push_the_rest_out_of_sight() -> None:
    for kind in ("table", "markdown", "latex"):
        lines = render(table([("x" * 100_000, "y"), ("a", "b")]), kind).split("\n")
        assert max(map(len, lines)) < 1000
        assert "(100000 characters)" in "\n".join(lines)
    assert "x" * 100_000 in render(table([("x" * 100_000, "y")]), "csv")


def test_a_key_of_a_record_is_no_formula_either() -> None:
    text = render(Table([Keyed(cells={"\x1b[31m": 1, "x\ny": 2})], []), "csv")
    assert text.split("\n")[0] == r"cells.\x1b[31m,cells.x\ny"


class Keyed(Settings):
    """A row whose keys come from a record."""

    cells: dict[str, int]


def test_an_unknown_format_is_refused_with_the_allowed_ones() -> None:
    with pytest.raises(UsageError, match="markdown"):
        render(table([("a", "b")]), "markdwon")


def test_all_formats_tell_the_same_numbers(tmp_path: Path) -> None:
    for defense, recovery in (("none", 1.0), ("dlr", 0.4)):
        write_cell(tmp_path, make_cell(defense=defense, recovery=recovery, utility=0.97))
    raw = json.loads(leaderboard(tmp_path, "json"))
    spread = list(csv.DictReader(io.StringIO(leaderboard(tmp_path, "csv"))))
    for row, line in zip(raw, spread, strict=True):
        assert float(line["robustness.low"]) == row["robustness"]["low"]
    for kind in ("table", "markdown", "latex"):
        text = leaderboard(tmp_path, kind)
        for row in raw:
            assert f"{row['robustness']['value']:.2f}" in text
            assert row["defense"] in text
    assert all(leaderboard(tmp_path, kind, cells=True).endswith("\n") for kind in FORMATS)
