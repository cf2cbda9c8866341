"""Reading a folder of results; what cannot be read is skipped by name, never silently."""

from __future__ import annotations

import gc
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.numbers.robustness import Cell
from harness.progress import Progress, Said, counted
from harness.records.cell_files import ITEMS, RECORD, CellFiles
from harness.records.items import Item, ItemTable, Scores, Side, read_items, read_table, scores
from harness.records.record import Record, parse_record, quick_record
from harness.records.record_files import faults
from harness.records.strict_json import loads
from leaderboards.index import Index


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


class Unread(ItemTable):
    """The task's items of a cell that was found whole before, read when somebody asks for one."""

    def __init__(self, folder: Path, metric: str, digest: str) -> None:
        self._folder, self._metric, self._digest = folder, metric, digest

    @cached_property
    def rows(self) -> Sequence[Item]:
        """The items.

        Raises:
            UsageError: a file of the cell has changed since.
        """
        files = CellFiles(self._folder)
        if files.digest != self._digest:
            raise UsageError(f"cell {self._folder.name!r} changed while it was read: run this again")
        return read_table(self._folder / ITEMS, self._metric, lambda: files.read(ITEMS))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def __iter__(self) -> Iterator[Item]:
        return iter(self.rows)

    def scores(self, model: Side, metric: str) -> Scores | None:
        """See `harness.records.items.scores`."""
        return scores(self.rows, model, metric)


MANY = 1000
"""From so many cells on, people wait for a table and want to see why."""


def progress_over(folder: Path) -> Progress:
    """What shows how far a reading of `folder` is; quiet where there are few cells. Nothing is read."""
    try:
        number = sum(1 for _ in (folder / "cells").iterdir())
    except OSError:
        number = 0
    return Progress(quiet=number < MANY)


def load_results(
    folder: Path, only: Collection[str] | None = None, *, utility: bool = True, index: Index | None = None,
    progress: Said | None = None,
) -> Results:  # fmt: skip
    """All records and items of `folder/cells/*`, ordered by id.

    Args:
        folder: an output folder.
        only: ids to read; None is all.
        utility: whether to read the items of utility tasks too, and those of altered cells, as a check of all figures
            needs them; a ranking needs those of the attack's task alone.
        index: what was found whole before, without utility; of that the items are read only when they are asked for.
        progress: hears of it.

    Raises:
        UsageError: the folder has no cells, or not one whose record this version can read.
    """
    if utility and index is not None:
        raise ValueError("an index vouches for the items of the attack's task alone")
    folders = [(path, leaves) for path, leaves in _folders(folder) if only is None or path.name in only]
    if not folders:
        raise UsageError(f"{str(folder)!r} holds no results: there is no cells/<id>/{RECORD} in it")
    cells: list[Cell] = []
    skipped, refused = [], []
    for path, leaves in counted(folders, "reading cells", progress):
        try:
            found = _cell(path, utility, index) if not leaves else Skipped(path.name, _LEAVES)
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


@contextmanager
def uncollected() -> Iterator[None]:
    """Without the search for unreachable cycles: among a million objects that all live, it was half of the time."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


_LEAVES = "a link that leaves the folder of results"


def _folders(folder: Path) -> list[tuple[Path, bool]]:
    """The folders of the cells, ordered, and of each whether it lies outside of the folder of results."""
    cells = folder / "cells"
    try:
        with os.scandir(cells) as entries:
            links = {entry.name: entry.is_symlink() for entry in entries if not entry.name.startswith(".")
                     and (Path(entry.path) if entry.is_symlink() else entry).is_dir()}  # fmt: skip
    except OSError:  # no such folder
        return []
    root = folder.resolve()
    inside = cells.resolve().is_relative_to(root)
    return [(cells / name, not ((cells / name).resolve().is_relative_to(root) if link else inside))
            for name, link in sorted(links.items())]  # fmt: skip


def _cell(path: Path, utility: bool, index: Index | None) -> Cell | Skipped:
    files = CellFiles(path)
    known = files.digest if index is not None else None
    if index is not None and known is not None and index.get(known) is not None:
        record = quick_record(files.read(RECORD))
        if record is not None:
            return Cell(record, Unread(path, record.task.metric, known), known)
    try:
        data = files.read(RECORD)
        document = loads(data)
    except FileNotFoundError:
        return Skipped(path.name, "no record: unfinished")
    except (OSError, ValueError) as error:
        return Skipped(path.name, f"partial or altered: {error.strerror if isinstance(error, OSError) else error}")
    record = parse_record(document, path.name, data)
    wrong = faults(path, document, record, files)
    if record.id != path.name:
        wrong.append(f"the record is of cell {record.id}")
    if wrong:
        left = _what_is_left(path, record) if utility else None
        return Skipped(path.name, "partial or altered: " + "; ".join(wrong), left)
    if utility:
        return Cell(record, read_items(path / ITEMS))
    items = read_table(path / ITEMS, record.task.metric, lambda: files.read(ITEMS))
    if index is not None and known is not None:
        index.put(known)
    return Cell(record, items, known)


def _what_is_left(path: Path, record: Record) -> Cell | None:
    try:
        return Cell(record, read_items(path / ITEMS))
    except UsageError:
        return None
