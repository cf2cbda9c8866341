"""Whatever of a cell is changed, `harness verify` says so: any value or key of its record, any column of its items."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hostile import NUMBERS, SURROGATE, at, places
from record_factory import METRIC, make_cell, write_cell
from tampering import change_item, changes, forge, noticed, put, with_change, write_rows

from harness.errors import UsageError
from harness.files import sha256
from harness.records.cell_files import ITEMS, RECORD
from harness.records.items import COLUMNS, Item, read_items
from harness.records.record_files import read_document, read_record
from leaderboards.load import load_results
from leaderboards.seal import seal_folder
from leaderboards.verify import ON_TRUST, notes, verify

PUBLISHED = Path(__file__).parents[2] / "leaderboards" / "results" / "tiny" / "cells"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published cell, sealed, in a folder of its own."""
    folder = tmp_path_factory.mktemp("tamper")
    chosen = sorted(path for path in PUBLISHED.iterdir() if '"complete"' in (path / RECORD).read_text()[:200])[0]
    shutil.copytree(chosen, folder / "cells" / chosen.name)
    seal_folder(folder)
    cell: Path = folder / "cells" / chosen.name
    assert read_document(cell)["seal"]
    return cell


def test_every_change_of_a_record_is_noticed(real: Path) -> None:
    """Each value by its least change, each key and element deleted and doubled: well over a thousand records."""
    document = read_document(real)
    assert not noticed(real, document)
    missed, tried = [], 0
    for kind, path, changed in changes(document):
        tried += 1
        if not noticed(real, changed):
            missed.append((kind, path))
    assert not missed
    assert tried > 1000


def test_hostile_values_anywhere_are_noticed(real: Path) -> None:
    document = read_document(real)
    for index, path in enumerate(places(document)):
        value = [*NUMBERS, SURROGATE, "\x1b[0m"][index % (len(NUMBERS) + 2)]
        old = at(document, path)
        if json.dumps(value) != json.dumps(old):
            assert noticed(real, with_change(document, path, put(value))), f"{path}: {old!r} -> {value!r}"


def test_neither_version_passes_for_the_other(real: Path) -> None:
    document = read_document(real)
    for change in ({"schema_version": 1}, {"seal": None}, {"seal": ""}, {"seal": "0" * 64}):
        assert noticed(real, {**document, **change}), change
    unsealed = {key: value for key, value in document.items() if key != "seal"}
    assert noticed(real, unsealed)
    assert not noticed(real, {**unsealed, "schema_version": 1})  # what version 1 was: readable, and named by `notes`


@pytest.fixture
def cell(tmp_path: Path) -> Path:
    """A made-up cell; `tmp_path` is its folder of results."""
    made = make_cell(seed=3)
    seeds = {side: sorted({row.seed for row in made.items if row.model == side and row.seed is not None})
             for side in ("attacked", "reference")}  # fmt: skip
    provenance = made.record.provenance.model_copy(update={"seeds": seeds})
    folder = write_cell(tmp_path, replace(made, record=made.record.model_copy(update={"provenance": provenance})))
    assert verify(tmp_path) == []
    return folder


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("index", [0, 130, 371])
def test_every_column_of_the_items_counts(cell: Path, column: str, index: int) -> None:
    """By the file's digest; and when a forger made digest and seal anew, by the figures that no longer follow."""
    change_item(cell / ITEMS, index, column)
    assert any(ITEMS in str(mismatch) for mismatch in verify(cell.parents[1]))
    forge(cell)
    with suppress(UsageError):  # the only cell of the folder holds items that are refused
        assert verify(cell.parents[1])


@pytest.mark.parametrize("column", COLUMNS)
def test_items_of_a_metric_that_no_figure_uses(cell: Path, column: str) -> None:
    """A forger's change of anything but the score is caught: models would be scored on other items, or weigh them."""
    items = read_items(cell / ITEMS)
    more = [replace(row, metric="beside") for row in items if row.metric == METRIC]
    write_rows(cell / ITEMS, [tuple(getattr(row, name) for name in COLUMNS) for row in [*items, *more]])
    forge(cell)
    assert verify(cell.parents[1]) == []
    change_item(cell / ITEMS, len(items) + [row.model for row in more].index("attacked"), column)
    assert any(ITEMS in str(mismatch) for mismatch in verify(cell.parents[1]))
    forge(cell)
    assert bool(verify(cell.parents[1])) == (column != "score")
    assert "scores of metrics beside the task's" in ON_TRUST


@pytest.mark.parametrize("change", ["drop", "double", "swap", "none"])
def test_items_that_are_missing_or_doubled(cell: Path, change: str) -> None:
    rows = [tuple(getattr(row, name) for name in COLUMNS) for row in read_items(cell / ITEMS)]
    made = {"drop": rows[1:], "double": [rows[0], *rows], "swap": [rows[1], rows[0], *rows[2:]], "none": []}[change]
    if made:
        write_rows(cell / ITEMS, made)
    else:
        (cell / ITEMS).unlink()
    assert verify(cell.parents[1])


FORGERIES: dict[str, Callable[[Any], None]] = {
    "a rosier recovery": lambda d: d["recovery"].update(value=0.0, low=0.0, high=0.0),
    "a narrower interval": lambda d: d["recovery"].update(low=d["recovery"]["value"]),
    "more items": lambda d: d["score"]["attacked"].update(n_items=600),
    "more seeds": lambda d: d["gain"].update(n_seeds=5),
    "another spec": lambda d: d["spec"].update(seed=4),
    "a cheaper attack": lambda d: d["cost"]["attack"].update(tokens=1),
    "fewer steps": lambda d: d["cost"]["attack"].update(steps=1),
    "a bill below nothing": lambda d: d["cost"]["lock"].update(seconds=-1.0),
    "a recovery that was cheap": lambda d: d["cost_to_recover"]["0.9"].update(censored=False, flops=1.0, step=1),
    "a trajectory cut short": lambda d: d["trajectory"].pop(),
    "a trajectory that goes back": lambda d: d["trajectory"][2].update(step=1),
    "utility that was lost": lambda d: d["utility"]["locked"].update(retention=1.0),
    "another chance": lambda d: d["utility"]["base"]["tasks"]["pairs"].update(chance=0.0),
    "a larger eps": lambda d: d["utility"].update(eps=0.5),
    "a collapse that is hidden": lambda d: d["utility"].update(collapsed=False),
    "another unit": lambda d: d["task"].update(unit="accuracy"),
    "another metric": lambda d: d["task"].update(metric="utility/pairs"),
    "another model": lambda d: d["model"].update(name="large"),
    "other seeds": lambda d: d["provenance"]["seeds"].update(attacked=[1, 2]),
    "a flag dropped": lambda d: d["provenance"]["weights"].update(locked="a" * 64, attacked=["a" * 64]),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forger_who_seals_again_is_caught_by_the_evidence(cell: Path, name: str) -> None:
    forge(cell, FORGERIES[name])
    assert verify(cell.parents[1])


def test_steps_beyond_the_budget_and_an_outcome_without_scores(cell: Path) -> None:
    def beyond(document: Any) -> None:
        document["spec"]["budget"] = {"steps": 10}

    forge(cell, beyond)
    assert any("10, the budget" in str(mismatch) for mismatch in verify(cell.parents[1]))
    unattacked = make_cell(attack="full", status="out_of_memory")
    folder = write_cell(cell.parents[1], unattacked)
    forge(folder, lambda document: document.update(status="complete"))
    assert any(m.field == "status" and m.cell == unattacked.record.id for m in verify(cell.parents[1]))


def test_verify_names_the_field_and_the_seal(cell: Path) -> None:
    document = json.loads((cell / RECORD).read_text())
    document["recovery"]["value"] += 0.01
    (cell / RECORD).write_text(json.dumps(document))
    fields = {mismatch.field: str(mismatch) for mismatch in verify(cell.parents[1])}
    assert set(fields) == {"record", "recovery.value"}
    assert "seal does not fit" in fields["record"]
    assert load_results(cell.parents[1]).cells == []  # no table shows an altered cell
    assert read_record(cell) is None  # and a run makes it again


def test_links_pipes_and_strays(cell: Path, tmp_path: Path) -> None:
    out = cell.parents[1]
    (cell / "payload.bin").write_bytes(b"\x80")
    assert any("payload.bin" in line for line in notes(out, load_results(out)))
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(cell, elsewhere / ("f" * 16))
    (out / "cells" / ("f" * 16)).symlink_to(elsewhere / ("f" * 16))
    linked, _ = out / "cells" / ("e" * 16), shutil.copytree(cell, out / "cells" / ("e" * 16))
    (linked / ITEMS).unlink()
    (linked / ITEMS).symlink_to("/dev/zero")
    piped, _ = out / "cells" / ("d" * 16), shutil.copytree(cell, out / "cells" / ("d" * 16))
    (piped / RECORD).unlink()
    os.mkfifo(piped / RECORD)
    reasons = {skipped.folder: skipped.reason for skipped in load_results(out).skipped}
    assert reasons["d" * 16] == f"partial or altered: {RECORD} is not a regular file"
    assert f"{ITEMS} is a link" in reasons["e" * 16]
    shutil.rmtree(elsewhere)
    (out / "cells" / ("f" * 16)).unlink()


def test_a_linked_cell_is_not_followed(cell: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.move(cell, elsewhere / cell.name)
    write_cell(cell.parents[1], make_cell(attack="full"))
    cell.symlink_to(elsewhere / cell.name)
    (skipped,) = load_results(cell.parents[1]).skipped
    assert "link that leaves" in skipped.reason


def test_sealing_once(tmp_path: Path) -> None:
    """Version 1 is read and named, sealed where nothing contradicts it, and left alone where something does."""
    honest, doubtful = (write_cell(tmp_path, make_cell(attack=name)) for name in ("full", "lora"))
    for folder in (honest, doubtful):
        document = json.loads((folder / RECORD).read_text())
        document |= {"schema_version": 1}
        del document["seal"]
        document["recovery"]["value"] += 0.1 if folder == doubtful else 0
        (folder / RECORD).write_text(json.dumps(document))
    results = load_results(tmp_path)
    assert len(results.cells) == 2
    assert any("2 of 2 records are of schema version 1" in line for line in notes(tmp_path, results))
    before = (honest / RECORD).read_text(), (doubtful / RECORD).read_text(), sha256(honest / ITEMS)
    done, left = seal_folder(tmp_path)
    assert done == 1
    assert "recovery.value" in left[0]
    assert (doubtful / RECORD).read_text() == before[1]
    assert sha256(honest / ITEMS) == before[2]
    old, new = json.loads(before[0]), json.loads((honest / RECORD).read_text())
    assert {**new, "schema_version": 1, "seal": None} == {**old, "seal": None}
    assert seal_folder(tmp_path)[0] == 0


def test_a_record_made_by_hand_is_worth_its_items(cell: Path) -> None:
    """The seal is no signature: items and figures that agree pass, and SECURITY.md says what finds them (a re-run)."""
    made = make_cell(seed=3, recovery=0.1)
    seeds = {side: sorted({row.seed for row in made.items if row.model == side}) for side in ("attacked", "reference")}
    provenance = made.record.provenance.model_copy(update={"seeds": seeds})
    write_cell(cell.parents[1], replace(made, record=made.record.model_copy(update={"provenance": provenance})))
    assert verify(cell.parents[1]) == []
    assert isinstance(made.items[0], Item)
    assert made.record.task.metric == METRIC
