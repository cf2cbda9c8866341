"""The page as text: the same rows as every other format, nothing from outside, nothing of a record as markup."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_factory import make_cell, write_cell

from harness.errors import Unavailable
from harness.layers import layers
from harness.records.record import Record
from harness.spec import resolve
from leaderboards.board import leaderboard
from leaderboards.columns import BOARD_COLUMNS
from leaderboards.html.page import CHART, page, source_hash
from leaderboards.html.pool import NOTHING, Pool, moved, script_json
from leaderboards.html.reproduce import HEAD, command, flow
from leaderboards.load import Results, load_results
from leaderboards.ranking import rank

PUBLISHED = Path(__file__).parents[2] / "leaderboards" / "results"
CHART_SHA256 = "87364cc2b2a76a6684929e7d6b80b18a897794db38400caff1fcf1791c6925d2"
"""Of dist/chart.umd.min.js in the npm package chart.js 4.6.1."""
values = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
                      | st.text(st.characters(exclude_categories=("Cs",))),
                      lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc_"), inner, max_size=3),
                      max_leaves=8)  # fmt: skip


class _Parts(HTMLParser):
    """Text of every script and style by order, the policy, and every attribute that could load something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.policy, self.loads, self.parts, self._open = "", [], list[tuple[str, dict[str, Any], str]](), False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        given = dict(attrs)
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"]
        self.loads += [value for name, value in given.items() if name in ("src", "href", "action", "data", "srcset")]
        assert not [name for name in given if name.startswith("on") or name == "style"]
        self._open = tag in ("script", "style")
        if self._open:
            self.parts.append((tag, given, ""))

    def handle_endtag(self, tag: str) -> None:
        self._open = False

    def handle_data(self, data: str) -> None:
        if self._open:
            tag, given, text = self.parts[-1]
            self.parts[-1] = (tag, given, text + data)


@pytest.fixture(scope="module")
def results() -> Results:
    locks = {"none": 1.0, "dlr": 0.4}
    return Results([make_cell(defense=lock, attack=attack, recovery=locks[lock], utility=0.97)
                    for lock in locks for attack in ("full", "lora")], [])  # fmt: skip


def data_of(text: str) -> Any:
    (data,) = [text for _, given, text in _Parts(text).parts if given.get("id") == "data"]
    return json.loads(data, parse_constant=pytest.fail)


def test_the_rows_are_those_of_every_other_format(results: Results) -> None:
    data, rows = data_of(page(results)), rank(results.cells)
    assert [column["title"] for column in data["board"]] == [title for title, _ in BOARD_COLUMNS]
    for column, (_, show) in zip(data["board"], BOARD_COLUMNS, strict=True):
        assert [data["pool"][index] for index in column["text"]] == [show(row) for row in rows]
    assert [lock["views"]["code"]["worst"] for lock in data["locks"]] == [row.worst_attack for row in rows]
    assert sorted(data["ids"]) == sorted(cell.record.id for cell in results.cells)


def test_the_command_line_writes_the_same_page_every_time(results: Results, tmp_path: Path) -> None:
    for cell in results.cells:
        write_cell(tmp_path, cell)
    assert leaderboard(tmp_path, "html") == leaderboard(tmp_path, "html")
    assert data_of(leaderboard(tmp_path, "html"))["ids"] == data_of(page(results))["ids"]


def test_the_policy_names_every_script_and_style_and_allows_nothing_else(results: Results) -> None:
    parts = _Parts(page(results))
    rules = dict(rule.strip().split(" ", 1) for rule in parts.policy.split(";"))
    assert rules["default-src"] == "'none'"
    run = [text for tag, given, text in parts.parts if tag == "script" and given.get("type") != "application/json"]
    assert rules["script-src"].split() == [source_hash(text) for text in run]
    assert rules["style-src"].split() == [source_hash(text) for tag, _, text in parts.parts if tag == "style"]
    assert [load for load in parts.loads if not load.startswith(("#", "data:,"))] == []


def test_nothing_of_a_record_is_markup() -> None:
    bad = "</script><script>alert(1)</script><!--<img src=x onerror=alert(1)>"
    text = page(Results([make_cell(defense=bad, attack=bad, task=bad, model=bad, reason=bad)], []), title=bad)
    assert bad not in text
    assert text.count("<script") == 3
    assert "&lt;/script&gt;" in re.findall(r"<title>(.*?)</title>", text)[0]
    assert bad in data_of(text)["pool"]


@given(values)
def test_data_reads_back_and_ends_no_script(value: Any) -> None:
    text = script_json(value)
    assert json.loads(text) == value
    assert not set(text) & set("<>&\u2028\u2029")


def test_equal_values_are_kept_once() -> None:
    pool = Pool()
    assert [pool.add("a"), pool.add(["a"]), pool.add("a"), pool.add(["a"]), pool.add('["a"]')] == [0, 1, 0, 1, 2]
    assert pool.maybe([]) == NOTHING
    other = Pool()
    other.add("b")
    there = moved(pool.texts, other)
    assert [other.texts[place] for place in there if place is not None] == pool.texts
    assert there[NOTHING] is None


def test_the_chart_library_is_the_published_one_with_its_licence() -> None:
    assert hashlib.sha256(CHART.read_bytes()).hexdigest() == CHART_SHA256
    assert "MIT" in (CHART.parent / "LICENSE.chart.js.md").read_text()


def test_without_jinja_the_extra_is_named(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(Unavailable, match="report"):
        page(results)


def read_back(record: Record, folder: Path) -> Any:
    """What `harness run --config` makes of the command's lines."""
    first, *lines, last = command(record).split("\n")
    assert (first, last) == (HEAD, "SPEC")
    (folder / "spec.yaml").write_text("\n".join(lines), encoding="utf-8")
    return layers(folder / "spec.yaml", {}, {}, ())


def said_again(recorded: Any, made: Any) -> Any:
    """`made` without the settings that came after the record was written (its id is that of its own version)."""
    if not (isinstance(recorded, dict) and isinstance(made, dict)):
        return made
    return {key: said_again(value, made[key]) for key, value in recorded.items() if key in made}


@pytest.mark.parametrize("folder", sorted(path.name for path in PUBLISHED.iterdir()))
def test_the_command_of_every_published_cell_makes_that_cell(folder: str, tmp_path: Path) -> None:
    for cell in load_results(PUBLISHED / folder, utility=False).cells:
        made = resolve(read_back(cell.record, tmp_path)).model_dump(mode="json")
        assert said_again(cell.record.spec, made) == cell.record.spec


@given(values)
def test_a_spec_of_any_values_reads_back_exactly(value: Any) -> None:
    import yaml

    text = flow(value)
    assert text.isascii()
    assert text.isprintable()
    again = yaml.safe_load(text)
    assert again == value
    assert json.dumps(again) == json.dumps(value)


def test_no_value_ends_the_command_early(tmp_path: Path) -> None:
    record = make_cell(defense="x\nSPEC\nrm -rf '$HOME' `id`").record
    assert command(record).split("\n").count("SPEC") == 1
    assert read_back(record, tmp_path)["defense"]["name"] == record.name("defense")
