"""Every small change of a record and of its items, for the test and for `benchmarks/tamper.py`."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hostile import at, places

from harness.errors import UsageError
from harness.files import sha256
from harness.records.cell_files import ITEMS, LOG, RECORD
from harness.records.items import COLUMNS, read_items
from harness.records.record import parse_record
from harness.records.record_files import faults, seal_of

OTHER: dict[str, Any] = {"model": "reference", "metric": "other", "seed": 77, "item": "elsewhere", "score": 0.125,
                         "weight": 3.0}  # fmt: skip
"""What an item's columns are changed to."""


def noticed(folder: Path, document: Any) -> bool:
    """Whether a cell with this record is refused or named as altered."""
    try:
        record = parse_record(document, folder.name)
    except UsageError:
        return True
    return bool(faults(folder, document, record)) or record.id != folder.name


def with_change(document: Any, path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Any:
    other = copy.deepcopy(document)
    change(at(other, path[:-1]), path[-1])
    return other


def put(value: Any) -> Callable[[Any, Any], None]:
    def change(parent: Any, key: Any) -> None:
        parent[key] = value

    return change


def delete(parent: Any, key: Any) -> None:
    del parent[key]


def add(parent: Any, key: Any) -> None:
    """A copy beside it: one more key, or one more element."""
    if isinstance(parent, list):
        parent.insert(key, parent[key])
    else:
        parent[f"{key}_"] = parent[key]


def nearby(value: Any) -> Iterator[Any]:
    """The least change of a value that is one."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (value + 1, float(value), str(value))
    elif isinstance(value, float):
        yield from (math.nextafter(value, math.inf), -value if value else -0.0)
    elif isinstance(value, str):
        yield from (value + " ", value[:-1], value.upper())
    elif value is None:
        yield from (0, "", False)
    else:
        yield type(value)()


def changes(document: Any) -> Iterator[tuple[str, tuple[Any, ...], Any]]:
    """Kind, place, and the changed record: each value by its least change, each key or element deleted and doubled."""
    for path in places(document):
        old = at(document, path)
        for value in nearby(old):
            if (json.dumps(value), type(value)) != (json.dumps(old), type(old)):
                yield "changed", path, with_change(document, path, put(value))
        yield "deleted", path, with_change(document, path, delete)
        yield "doubled", path, with_change(document, path, add)


def write_rows(path: Path, rows: list[tuple[Any, ...]]) -> None:
    types = (pa.string(), pa.string(), pa.int64(), pa.string(), pa.float64(), pa.float64())
    columns = [pa.array(list(column), kind) for column, kind in zip(zip(*rows, strict=True), types, strict=True)]
    pq.write_table(pa.table(columns, names=COLUMNS), path)


def change_item(path: Path, index: int, column: str) -> None:
    """Write the file of items with one column of one row changed."""
    rows = [tuple(getattr(row, name) for name in COLUMNS) for row in read_items(path)]
    place = COLUMNS.index(column)
    value = OTHER[column] if rows[index][place] != OTHER[column] else 2 * OTHER[column]
    rows[index] = (*rows[index][:place], value, *rows[index][place + 1 :])
    write_rows(path, rows)


def forge(folder: Path, change: Callable[[Any], None] = lambda document: None) -> None:
    """Change the record and make its digests and its seal anew, as a forger would."""
    document = json.loads((folder / RECORD).read_text())
    change(document)
    document["provenance"]["files"] = {name: sha256(folder / name) for name in (ITEMS, LOG)}
    document["seal"] = seal_of(document)
    (folder / RECORD).write_text(json.dumps(document))
