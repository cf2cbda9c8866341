"""Secrets of the environment do not reach a record, its log, or an error line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_factory import make_cell

from harness.cli.main import main
from harness.errors import UsageError
from harness.records.cell_files import ITEMS
from harness.records.record_files import read_record, write_record
from harness.records.redact import HIDDEN, redact, redact_tree
from harness.records.sections import Flag
from harness.spec import resolve

SECRETS = {"HF_TOKEN": "abcd-efgh-ijkl", "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG",
           "db_password": "correct horse", "MY_API_KEY": "abcd-efgh-ijkl-and-more"}  # fmt: skip
HARMLESS = {"HOME": "/home/alice", "PATH": "/usr/bin:/bin", "TOKENIZERS_PARALLELISM": "false", "KEYBOARD": "qwertyuiop",
            "SHORT_TOKEN": "full", "HF_TOKEN_PATH": "/run/secrets/token"}  # fmt: skip
ENVIRONMENT = SECRETS | HARMLESS


@pytest.mark.parametrize("name", SECRETS)
def test_the_value_of_a_secret_variable_is_hidden_wherever_it_stands(name: str) -> None:
    value = SECRETS[name]
    for text in (value, f"401 for token {value}: denied", f"x={value};y={value}"):
        assert value not in redact(text, ENVIRONMENT)
        assert HIDDEN in redact(text, ENVIRONMENT)
    tree = redact_tree({"a": [value, {value: 3}], "b": None}, ENVIRONMENT)
    assert tree == {"a": [HIDDEN, {HIDDEN: 3}], "b": None}


@pytest.mark.parametrize("token", [
    "hf_" + "a1B2" * 8, "ghp_" + "Z9" * 18, "github_pat_" + "1" * 30, "sk-proj-" + "abcDEF12" * 4, "AKIA" + "A1B2" * 4,
    "xoxb-1234567890-abcdef", "glpat-" + "x1" * 10, "eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJSMeKKF2Q",
])  # fmt: skip
def test_known_forms_of_tokens_are_hidden_without_the_environment(token: str) -> None:
    assert redact(f"Authorization of {token} failed", {}) == f"Authorization of {HIDDEN} failed"


def test_logins_and_bearers() -> None:
    assert redact("get https://alice:s3cret@example.org/x", {}) == f"get https://{HIDDEN}@example.org/x"
    assert redact("Bearer abcdefgh12345", {}) == f"Bearer {HIDDEN}"
    assert redact("https://example.org:8080/a@b", {}) == "https://example.org:8080/a@b"


def test_paths_of_the_user_are_shortened_but_not_what_was_typed() -> None:
    trace = ('File "/home/alice/lockbench/harness/cell.py", line 3\n'
             "OSError: /home/alice/m/config.json, /homes/home/alice/x")  # fmt: skip
    assert redact(trace, ENVIRONMENT) == ('File "harness/cell.py", line 3\nOSError: ~/m/config.json, '
                                          "/homes/home/alice/x")  # fmt: skip
    assert redact(trace, ENVIRONMENT, paths=False) == trace


@given(st.text())
def test_text_without_secrets_stays(text: str) -> None:
    assert redact(text, {"HF_TOKEN": "abcd-efgh-ijkl"}) == text or "://" in text or "earer" in text or "File" in text
    assert redact(redact(text)) == redact(text)


def test_a_record_and_its_log_hold_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "tok-3f9a8b7c6d"
    monkeypatch.setenv("WANDB_API_KEY", secret)
    cell = make_cell()
    flag = Flag(flag="x", severity="info", detail=f"saw {secret}")
    record = cell.record.model_copy(update={"status_reason": f"HTTP 401 with {secret}", "validity": [flag]})
    written = write_record(tmp_path / cell.record.id, record, cell.items, f"traceback\n  {secret}\n")
    assert read_record(tmp_path / cell.record.id) == written
    for path in (tmp_path / cell.record.id).iterdir():
        assert secret.encode() not in path.read_bytes(), path.name
    assert written.status_reason == f"HTTP 401 with {HIDDEN}"
    assert written.spec == cell.record.spec
    assert (tmp_path / cell.record.id / ITEMS).is_file()


def test_a_spec_with_a_secret_is_refused_before_it_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = "tok-3f9a8b7c6d"
    monkeypatch.setenv("HF_TOKEN", secret)
    with pytest.raises(UsageError, match=r"spec\.model\.revision holds what looks like"):
        resolve({"model": {"name": "tiny", "revision": secret}})
    assert main(["run", "--dry-run", "--set", f"model.revision={secret}"]) == 2
    assert main(["run", "--defense", secret]) == 2
    said = capsys.readouterr()
    assert secret not in said.out + said.err
