"""Reading a folder of results; what cannot be read is skipped by name, never silently."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.numbers.robustness import Cell
from harness.progress import Said, counted
from harness.records.cell_files import ITEMS, RECORD, CellFiles
from harness.records.items import Item, ItemTable, Scores, Side, read_items, read_table, scores
from harness.records.record import Record, parse_record, quick_record
from harness.records.record_files import faults
from harness.records.strict_json import loads
from leaderboards.groups import Found, clashes, folders
from leaderboards.index import Index


@dataclass(frozen=True)
class Skipped:
    """A cell folder that holds no record to use."""

    folder: str
    reason: str
    cell: Cell | None = None
    """What could still be read of it, for `harness verify`; no table shows it."""
    refused: UsageError | None = field(default=None, compare=False)
    """Why this version cannot read it, where it is no damage."""


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
    found = folders(folder, only)
    cells: list[Cell] = []
    skipped, refused = [], []
    for one in counted(read_cells(found, utility, index), len(found), "reading cells", progress):
        if isinstance(one, Cell):
            cells.append(one)
        else:
            skipped.append(one)
            refused += [one.refused] if one.refused else []
    if len(refused) == len(found):
        raise refused[0]
    return Results(cells, with_clashes(skipped, folder, only))


def with_clashes(skipped: Sequence[Skipped], folder: Path, only: Collection[str] | None) -> list[Skipped]:
    """What was skipped, ordered, and with it the cells that a merge took out."""
    apart = {name: Skipped(name, _CLASH) for name in clashes(folder, only)}
    return sorted([*(one for one in skipped if one.folder not in apart), *apart.values()], key=lambda one: one.folder)


BATCH, HELD = 50, 16 << 20
"""Cells that are read together, and bytes of their files."""


def read_cells(found: Found, utility: bool = True, index: Index | None = None) -> Iterator[Cell | Skipped]:
    """Some of `groups.folders`, in the same order; see `load_results`.

    They take every step together: what one step runs then stays in the processor's caches, a fifth of all time.
    """
    together: list[_Reading] = []
    held = 0
    for path, leaves in found:
        cell = _Reading(path, leaves, utility, index)
        cell.take(_Reading.look_up)
        together.append(cell)
        held += cell.files.held
        if len(together) == BATCH or held > HELD:
            yield from _read(together)
            together, held = [], 0
    yield from _read(together)


def _read(together: list[_Reading]) -> list[Cell | Skipped]:
    for step in (_Reading.parse, _Reading.check, _Reading.read_items):
        for cell in together:
            cell.take(step)
    return [cell.found or Skipped(cell.path.name, "not read") for cell in together]


_CLASH = "a clash of merged folders, which gave it different scores: see clashes/ in the folder of results"
_LEAVES = "a link that leaves the folder of results"


class _Reading:
    """A cell while it is read, step by step, until something is found."""

    record: Record
    document: Any

    def __init__(self, path: Path, leaves: bool, utility: bool, index: Index | None) -> None:
        self.path, self.files, self.utility, self.index = path, CellFiles(path), utility, index
        self.known: str | None = None
        self.found: Cell | Skipped | None = self._skipped(_LEAVES) if leaves else None

    def take(self, step: Callable[[_Reading], None]) -> None:
        """One step, unless something is found; what refuses the cell there ends its reading."""
        try:
            if self.found is None:
                step(self)
        except UsageError as error:
            self.found = Skipped(self.path.name, str(error), refused=error)

    def look_up(self) -> None:
        """Whether the index vouches for the bytes of its files, which are read here."""
        self.known = self.files.digest
        if self.index is not None and self.known is not None and self.index.get(self.known) is not None:
            record = quick_record(self.files.read(RECORD))
            if record is not None:
                self.found = Cell(record, Unread(self.path, record.task.metric, self.known), self.known)

    def parse(self) -> None:
        """The record."""
        try:
            data = self.files.read(RECORD)
            self.document = loads(data)
        except FileNotFoundError:
            self.found = self._skipped("no record: unfinished")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            self.found = self._skipped(f"partial or altered: {reason}")
        else:
            self.record = parse_record(self.document, self.path.name, data)

    def check(self) -> None:
        """Whether everything is as it was written."""
        wrong = faults(self.path, self.document, self.record, self.files)
        if self.record.id != self.path.name:
            wrong.append(f"the record is of cell {self.record.id}")
        if wrong:
            left = _what_is_left(self.path, self.record) if self.utility else None
            self.found = self._skipped("partial or altered: " + "; ".join(wrong), left)

    def read_items(self) -> None:
        """The items, and so the cell."""
        if self.utility:
            self.found = Cell(self.record, read_items(self.path / ITEMS))
            return
        items = read_table(f"{self.path}/{ITEMS}", self.record.task.metric, lambda: self.files.read(ITEMS))
        if self.index is not None and self.known is not None:
            self.index.put(self.known)
        self.found = Cell(self.record, items, self.known)

    def _skipped(self, reason: str, left: Cell | None = None) -> Skipped:
        return Skipped(self.path.name, reason, left)


def _what_is_left(path: Path, record: Record) -> Cell | None:
    try:
        return Cell(record, read_items(path / ITEMS))
    except UsageError:
        return None
