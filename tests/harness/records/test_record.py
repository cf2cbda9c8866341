from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from record_factory import make_cell

from harness.errors import UsageError
from harness.records.cell_files import ITEMS, LOG, RECORD
from harness.records.draft import layer_errors
from harness.records.record import SCHEMA_FILE, Record, dumps, schema
from harness.records.record_files import read_record, write_record
from harness.records.sections import Interval

number = st.none() | st.floats(allow_nan=False, allow_infinity=False)
words = st.none() | st.text()
intervals = st.builds(Interval, value=number, low=number, high=number, n_items=st.integers(0, 10**6), reason=words)


@pytest.fixture(scope="module")
def record() -> Record:
    return make_cell().record


@settings(max_examples=50)
@given(data=st.data())
def test_records_survive_strict_json(record: Record, data: Any) -> None:
    changed = record.model_copy(update={"recovery": data.draw(intervals), "gain": data.draw(intervals),
                                        "status_reason": data.draw(st.none() | st.text())})  # fmt: skip
    text = dumps(changed)
    assert Record.model_validate(json.loads(text, parse_constant=pytest.fail)) == changed


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_is_refused(record: Record, bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Interval(value=bad)
    with pytest.raises(ValueError, match=r"finite|JSON compliant"):
        Record.model_validate({**record.model_dump(), "spec": {**record.spec, "x": {"deep": [bad]}}})


def test_unknown_keys_and_a_spec_without_its_parts_are_refused(record: Record) -> None:
    raw = record.model_dump(mode="json")
    with pytest.raises(ValueError, match="extra"):
        Record.model_validate({**raw, "bonus": 1})
    with pytest.raises(ValueError, match="attack"):
        Record.model_validate({**raw, "spec": {k: v for k, v in record.spec.items() if k != "attack"}})


def test_the_record_has_the_keys_others_rely_on(record: Record) -> None:
    promised = """schema_version id status status_reason spec model fidelity utility task score gain reference_gain
                  recovery cost cost_to_recover trajectory validity provenance"""
    assert set(promised.split()) <= set(record.model_dump())
    assert set(record.model_dump()["score"]) == {"base", "locked", "attacked", "reference", "unit"}
    assert {"value", "low", "high", "n_items", "n_seeds", "reason"} == set(record.model_dump()["recovery"])


def test_layer_errors_come_from_every_part_of_a_lock_and_are_finite() -> None:
    report = {"layer_errors": {"l0": 0.5, "l1": float("nan"), "l2": None}, "heldout": {"kl": 0.1},
              "dlr": {"layer_errors": {"l0": 1}}}  # fmt: skip
    assert layer_errors(report) == {"l0": 0.5, "dlr: l0": 1.0}
    assert layer_errors({"layer_errors": [1.0]}) == {}


def test_the_shipped_schema_is_current() -> None:
    command = 'python -c "from harness.records.record import schema, SCHEMA_FILE; SCHEMA_FILE.write_text(schema())"'
    assert SCHEMA_FILE.read_text() == schema(), f"remake it: {command}"


def test_every_field_is_documented() -> None:
    found = json.loads(schema())
    for name, model in {"Record": found, **found["$defs"]}.items():
        for key, field in model.get("properties", {}).items():
            assert field.get("description"), f"{name}.{key} has no doc line"


def test_a_written_cell_reads_back(tmp_path: Path, record: Record) -> None:
    cell = make_cell()
    written = write_record(tmp_path / "c", record, cell.items, "log")
    assert read_record(tmp_path / "c") == written
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == sorted([RECORD, ITEMS, LOG])
    assert read_record(tmp_path / "none") is None


def test_a_cut_file_never_reads_as_complete(tmp_path: Path) -> None:
    cell = make_cell()
    folder = tmp_path / "c"
    write_record(folder, cell.record, cell.items[:3], "a log\n")
    for name, step in ((RECORD, 1), (ITEMS, 13), (LOG, 1)):
        whole = (folder / name).read_bytes()
        for size in range(0, len(whole), step):
            (folder / name).write_bytes(whole[:size])
            assert read_record(folder) is None, f"{name} cut to {size} of {len(whole)} bytes"
        (folder / name).unlink()
        assert read_record(folder) is None
        (folder / name).write_bytes(whole)
    assert read_record(folder) is not None


def test_a_rewrite_that_dies_half_way_leaves_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = make_cell()
    write_record(tmp_path, cell.record, cell.items, "first")

    def die(path: Path, text: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.records.record_files.atomic_write_text", die)
    with pytest.raises(KeyboardInterrupt):
        write_record(tmp_path, cell.record, cell.items, "second")
    assert read_record(tmp_path) is None


@pytest.mark.parametrize("version", [0, 3, "2", None, True, 2.0])
def test_another_version_is_refused_in_one_line(tmp_path: Path, record: Record, version: object) -> None:
    raw = {**record.model_dump(mode="json"), "schema_version": version}
    (tmp_path / RECORD).write_text(json.dumps(raw))
    with pytest.raises(UsageError, match=f"schema version {version!r}") as caught:
        read_record(tmp_path)
    assert "\n" not in str(caught.value)


def test_nan_in_a_file_is_not_a_record(tmp_path: Path, record: Record) -> None:
    (tmp_path / RECORD).write_text(dumps(record).replace('"kl": 0.03', '"kl": NaN'))
    assert read_record(tmp_path) is None
