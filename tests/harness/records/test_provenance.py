from __future__ import annotations

import getpass
import platform
from datetime import UTC, datetime
from pathlib import Path

from harness.records.provenance import Weights, code, collect, utc_now


def test_it_names_no_host_no_user_and_no_path() -> None:
    text = collect(started=utc_now(), finished=utc_now(), weights=Weights(base="a" * 64)).model_dump_json()
    assert str(Path.home()) + "/" not in text
    assert str(Path.cwd()) not in text
    for private in (platform.node(), getpass.getuser()):
        assert f'"{private}"' not in text


def test_it_names_the_packages_and_the_machine() -> None:
    found = collect(threads=3)
    assert found.packages["torch"]
    assert found.machine.threads == 3
    assert found.machine.cores
    assert {"transformers", "accelerate", "peft", "datasets", "lm_eval", "deepspeed"} <= set(found.packages)


def test_the_commit_and_its_dirt_come_from_a_checkout_of_this_code(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    answers = {"ls-files": "harness/records/provenance.py", "rev-parse": "c" * 40, "status": " M harness/x.py"}
    found = code(tmp_path, lambda arguments: answers[arguments[0]])
    assert (found.commit, found.dirty) == ("c" * 40, True)
    clean = code(tmp_path, lambda arguments: {**answers, "status": ""}[arguments[0]])
    assert clean.dirty is False


def test_a_wheel_inside_somebody_elses_checkout_does_not_claim_its_commit(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    found = code(tmp_path, lambda arguments: None if arguments[0] == "ls-files" else "d" * 40)
    assert (found.commit, found.dirty) == (None, None)
    assert code(tmp_path / "nowhere").commit is None


def test_the_clock_is_utc() -> None:
    now = datetime.fromisoformat(utc_now())
    assert now.tzinfo is not None
    assert abs((datetime.now(UTC) - now).total_seconds()) < 60
