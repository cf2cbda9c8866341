"""JSON, YAML, text and files from strangers: one reading, or one line that says why not."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from hostile import JSON, STRINGS, YAML
from hypothesis import example, given
from hypothesis import strategies as st

from harness.cli.main import main
from harness.errors import UsageError
from harness.files import read_regular
from harness.layers import parse_value
from harness.models.resolve import local_folder, resolve
from harness.records.record_files import seal_fits, seal_of
from harness.records.strict_json import loads
from harness.strict_yaml import load_yaml, read_yaml
from harness.text import visible

leaves = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(-1e100, 1e100) | st.text()
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


@given(values)
def test_strict_json_reads_what_json_writes(value: Any) -> None:
    assert loads(json.dumps(value).encode()) == value


def read(data: bytes) -> str:
    """What `loads` says, types and signs of zero included."""
    try:
        return repr(loads(data))
    except ValueError as error:
        return f"refused: {error}"


odd_texts = st.sampled_from([b'{"a": 1, "a": 2}', b'{"a" : 1, "a": 2}', b'{"a":1,"b":{"c":1,"c":1}}', b"-0",
                             b"[-0.0, 1e100]", b"[1e101]", b"[1e400]", b"[18446744073709551615]",
                             b"[18446744073709551616]",
                             b"[-9223372036854775809]", b"[NaN]", b"[-Infinity]", b'{"a\\":": 1}', b'{"x": "a\\": b"}',
                             b'{"a": "one :two", "b": 1}', b'{"a\\u003a": 1, "b": 2, "b": 3}',
                             b'{"a": "\\u003a:", "b": 2, "b": 3}', b"[1e17, 1e18, -1e99]",
                             b'{"a": "1e+' + b"9" * 5000 + b'"}',
                             b"[" * 50 + b"1," * 200_000 + b"1" + b"]" * 50, b'{"a": "1e+19", "b": 1e17}',
                             b"[9007199254740993, 0.1, 1e-05, 1e-7, 1e-320]", b'"\\ud800"', b'["\\ud800"]',
                             b'{"a"\n: 1, "a": 1}', b"\xef\xbb\xbf{}", b'"\xff"', b"null",
                             b"[]", b"[" * 58 + b"]" * 58, b"[" * 60 + b"]" * 60, b"[" * 61 + b"]" * 61])  # fmt: skip
texts = odd_texts | values.map(lambda value: json.dumps(value).encode()) | st.builds(
    lambda value, at, piece: (text := json.dumps(value).encode())[: at % len(text)] + piece + text[at % len(text) :],
    values, st.integers(0, 999),
    st.sampled_from([b'"', b":", b' "', b"{", b",", b'"a": 1, "a": 1', b" :", b"e9", b"\\"]),
)  # fmt: skip


@given(texts)
def test_the_quick_reading_says_what_the_slow_one_says(text: bytes) -> None:
    quick = read(text)
    with pytest.MonkeyPatch.context() as only:
        only.setattr("harness.records.strict_json._plain", lambda _: None)
        assert read(text) == quick


small = st.floats(-1e-3, 1e-3) | st.sampled_from([1e-05, 1e-7, -5e-05, 10.00001, 1e16, 1e-10, 1e-100, 0.0001])
documents = st.dictionaries(st.text(), st.recursive(leaves.filter(lambda leaf: leaf != 2**64) | small
                                                    | st.sampled_from([":1e-5,", ":1e-05,", "[0.00001]", "\x7f", "é"]),
                                                    lambda inner: st.lists(inner, max_size=4)
                                                    | st.dictionaries(st.text(), inner, max_size=4)))  # fmt: skip


@given(documents, documents)
@example({"a": ":1e-5,"}, {"a": ":1e-05,"})
@example({"a": 1}, {"a": 1.0})
@example({"a": 1e-7}, {"a": "1e-07"})
@example({"a": [0.00001, "x,0.00001,"]}, {"a": [1e-05, "x,1e-05,"]})
@example({"a": "\ud800"}, {})
@example({"a": "é"}, {"a": "\x7f"})
def test_a_quick_look_at_a_seal_says_what_the_slow_one_says(one: Any, other: Any) -> None:
    as_given = hashlib.sha256(json.dumps(one, separators=(",", ":")).encode()).hexdigest()
    with suppress(orjson.JSONEncodeError):  # a lone surrogate
        as_given = hashlib.sha256(orjson.dumps(one, option=orjson.OPT_SORT_KEYS)).hexdigest()
    for seal in (seal_of(one), seal_of(other), as_given):
        assert seal_fits(one, seal) == (seal == seal_of(one))
        assert seal_fits({**one, "seal": seal}, seal) == (seal == seal_of(one))


def test_records_of_ours_need_no_slow_look(monkeypatch: pytest.MonkeyPatch) -> None:
    files = sorted(Path(__file__).parents[3].glob("leaderboards/results/tiny/cells/*/record.json"))
    seals = [loads(file.read_bytes())["seal"] for file in files]
    monkeypatch.setattr("harness.records.record_files.seal_of", pytest.fail)
    monkeypatch.setattr("harness.records.strict_json.json", None)
    assert files
    assert all(seal_fits(loads(file.read_bytes()), seal) for file, seal in zip(files, seals, strict=True))


def test_the_quick_reading_finds_exponents_where_orjson_writes_a_sign() -> None:
    assert orjson.dumps([1e16, 1e100]) == b"[1e+16,1e+100]"


@pytest.mark.parametrize("name", JSON)
def test_hostile_json_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        loads(JSON[name])
    assert len(str(caught.value)) < 400


def test_model_configurations_may_have_constants_and_large_numbers() -> None:
    found = loads(b'{"a": Infinity, "b": 1000000000000000019884624838656, "c": 1e300}', constants=True)
    assert found == {"a": float("inf"), "b": 1000000000000000019884624838656, "c": 1e300}
    with pytest.raises(ValueError, match="twice"):
        loads(JSON["key twice"], constants=True)


@pytest.mark.parametrize("name", YAML)
def test_hostile_yaml_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        load_yaml(YAML[name])
    assert "\n" not in str(caught.value)
    (tmp_path / "a.yaml").write_text(YAML[name])
    with pytest.raises(UsageError):
        read_yaml(tmp_path / "a.yaml")


def test_plain_anchors_and_merge_keys_are_read() -> None:
    text = "base: &base {steps: 3, optim: adamw}\nattack: {<<: *base, steps: 5}\nlist: &l [1, 2]\nagain: *l"
    assert load_yaml(text) == {"base": {"steps": 3, "optim": "adamw"}, "attack": {"steps": 5, "optim": "adamw"},
                               "list": [1, 2], "again": [1, 2]}  # fmt: skip


@given(st.text(max_size=60))
@example("&a [*a]")
@example("? a\n: b")
@example("{a: 1, a: 2}")
def test_any_text_is_yaml_or_refused(text: str) -> None:
    try:
        found = load_yaml(text)
    except ValueError:
        return
    plain = yaml.load(text, yaml.BaseLoader)  # every leaf a text
    assert type(found) is type(plain) if isinstance(plain, (list, dict)) else not isinstance(found, (list, dict))


@given(values)
def test_what_yaml_writes_is_read(value: Any) -> None:
    assert load_yaml(yaml.safe_dump(value)) == value


def test_a_date_is_text() -> None:
    assert load_yaml("a: 2001-06-31\nb: 2001-01-01") == {"a": "2001-06-31", "b": "2001-01-01"}
    assert parse_value("2024-01-01") == "2024-01-01"


def test_a_value_of_the_command_line_that_is_no_yaml_is_text() -> None:
    assert parse_value("{a: 1, a: 2}") == "{a: 1, a: 2}"
    assert parse_value("[" * 5000) == "[" * 5000
    assert parse_value("9" * 5000) == "9" * 5000


def test_a_yaml_file_that_is_too_large(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"a: 1\n" + b"#" * (1 << 20))
    with pytest.raises(UsageError, match="larger than"):
        read_yaml(tmp_path / "a.yaml")


@pytest.mark.parametrize("name", STRINGS)
def test_visible_text_has_no_controls_and_shows_look_alikes(name: str) -> None:
    shown = visible(STRINGS[name])
    assert shown.isprintable()
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]", shown)
    if name in ("cyrillic a", "greek omicron", "fullwidth", "mathematical", "hangul filler", "tag characters"):
        assert shown.isascii()


def test_visible_leaves_honest_text_alone() -> None:
    for text in ("dlr (depth=32)", "modèle naïve", "./模型", "модель", "Ångström 3 µs ± 0,5 – déjà vu…", "🔒", "Δ = 5"):  # noqa: RUF001
        assert visible(text) == text


def test_an_error_line_cannot_reach_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--defense", STRINGS["ansi colour"]]) == 2
    with pytest.raises(SystemExit):
        main(["run", "--seed", STRINGS["ansi erase line"]])
    folder = tmp_path / "cells" / "\x1b[31mred"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text('{"schema_version": "\x9b2J"}')
    assert main(["verify", str(tmp_path)]) == 2
    assert main(["leaderboard", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert not re.search(r"[\x1b\x9b]", said.out + said.err)


@pytest.mark.parametrize("name", ["long", "null", "percent encoded", "option", "blanks", "hidden", "shell"])
def test_a_model_that_no_path_can_have_is_refused_in_one_line(name: str) -> None:
    for model in (STRINGS[name], f"~{STRINGS[name]}/model"):
        assert local_folder(model) is None
        with pytest.raises(UsageError) as caught:
            resolve(model, {})
        assert "\n" not in str(caught.value)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_regular(tmp_path / "file", 5) == b"12345"
    with pytest.raises(ValueError, match="larger than 4 bytes"):
        read_regular(tmp_path / "file", 4)
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "endless").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, words in (("link", "a link"), ("endless", "a link"), ("folder", "not a reg"), ("pipe", "not a reg")):
        with pytest.raises(ValueError, match=words):
            read_regular(tmp_path / name, 5)
    with pytest.raises(ValueError, match="not a regular"):
        read_regular(Path("/dev/zero"), 5)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "absent", 5)


def test_help_is_quiet_about_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "abcdefgh12345678")
    with redirect_stdout(io.StringIO()) as said, pytest.raises(SystemExit):
        main(["run", "--help"])
    assert "abcdefgh" not in said.getvalue()
