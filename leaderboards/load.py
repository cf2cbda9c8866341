"""Reading a folder of results; what cannot be read is skipped by name, never silently."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError
from harness.items import read_items
from harness.record import ITEMS, RECORD, Record, faults, parse_record, read_document
from harness.robustness import Cell


@dataclass(frozen=True)
class Skipped:
    """A cell folder that holds no record to use."""

    folder: str
    reason: str
    cell: Cell | None = None
    """What could still be read of it, for `harness verify`; no table shows it."""


@dataclass(frozen=True)
class Results:
    """Everything in one output folder."""

    cells: list[Cell]
    skipped: list[Skipped]


def load_results(folder: Path, only: Collection[str] | None = None, *, utility: bool = True) -> Results:
    """All records and items of `folder/cells/*`, ordered by id.

    Args:
        folder: an output folder.
        only: ids to read; None is all.
        utility: whether to read the items of utility tasks too; a ranking needs those of the attack's task alone.

    Raises:
        UsageError: the folder has no cells, or not one whose record this version can read.
    """
    folders = [path for path in _folders(folder) if only is None or path.name in only]
    if not folders:
        raise UsageError(f"{str(folder)!r} holds no results: there is no cells/<id>/{RECORD} in it")
    cells, skipped, refused = [], [], []
    for path in folders:
        try:
            found = _cell(path, utility)
        except UsageError as error:
            refused.append(error)
            found = Skipped(path.name, str(error))
        if isinstance(found, Cell):
            cells.append(found)
        else:
            skipped.append(found)
    if len(refused) == len(folders):
        raise refused[0]
    return Results(cells, skipped)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "cells").glob("[!.]*") if path.is_dir())


def _cell(path: Path, utility: bool) -> Cell | Skipped:
    if not path.resolve().is_relative_to(path.parent.parent.resolve()):
        return Skipped(path.name, "a link that leaves the folder of results")
    try:
        document = read_document(path)
    except FileNotFoundError:
        return Skipped(path.name, "no record: unfinished")
    except (OSError, ValueError) as error:
        return Skipped(path.name, f"partial or altered: {error.strerror if isinstance(error, OSError) else error}")
    record = parse_record(document, path.name)
    wrong = faults(path, document, record)
    if record.id != path.name:
        wrong.append(f"the record is of cell {record.id}")
    if not wrong:
        return Cell(record, read_items(path / ITEMS, None if utility else record.task.metric))
    return Skipped(path.name, "partial or altered: " + "; ".join(wrong), _what_is_left(path, record))


def _what_is_left(path: Path, record: Record) -> Cell | None:
    try:
        return Cell(record, read_items(path / ITEMS))
    except UsageError:
        return None
