"""What a leaderboard shows of a folder, gathered group by group, so that no more than a group is held at once.

A group is a row of the ranking with its cells: nothing in one depends on another but names and ranks, which come last.
So many groups can be taken by processes side by side. What comes out is the same for any number of them.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from harness.errors import UsageError
from harness.numbers.robustness import Cell
from harness.progress import Said
from harness.threads import blas_threads
from leaderboards.groups import Group, Job, Look, group_of, quick_group, silence
from leaderboards.index import Index
from leaderboards.load import BATCH, Skipped, read_cells, with_clashes
from leaderboards.ranking import BoardRow, ranked, row_of

T = TypeVar("T")
Show = Callable[[Sequence[Cell]], T]
"""What is kept of the cells of a group."""


@dataclass(frozen=True)
class Gathered(Generic[T]):
    """All of a folder."""

    rows: list[BoardRow]
    """The ranking."""
    shown: list[T]
    """What was kept of each group that has a cell."""
    skipped: list[Skipped]
    """Folders of cells that hold no record to use."""


@dataclass(frozen=True)
class _Found(Generic[T]):
    """All of a group."""

    group: Group
    row: BoardRow | None
    shown: T | None
    skipped: list[Skipped]
    folders: int
    entries: Mapping[str, bytes]
    """What an index in another process has learnt of it."""


def gather(
    look: Look, show: Show[T], *, index: Index | None = None, progress: Said | None = None
) -> Gathered[T]:
    """Read, check and rank.

    Args:
        look: at a folder; it says how many processes there may be.
        show: what to keep of the cells of a group; with more processes than one, a function of a module.
        index: what was found before; new entries are added.
        progress: hears of it.

    Raises:
        UsageError: there is not one record that this version can read; or a file changed meanwhile.
    """
    rows: dict[Group, BoardRow] = {}
    shown: dict[Group, T] = {}
    skipped: list[Skipped] = []
    done = 0
    with blas_threads(1):
        for part in _parts(look, show, index):
            if part.row is not None and part.shown is not None:
                rows[part.group], shown[part.group] = part.row, part.shown
            skipped += part.skipped
            if index is not None:
                index.add(part.entries)
            done += part.folders
            if progress is not None:
                progress("reading and ranking", done, len(look.found))
    refused = [one.refused for one in sorted(skipped, key=lambda one: one.folder) if one.refused]
    if len(refused) == len(look.found):
        raise refused[0]
    left = with_clashes(skipped, look.folder, look.only)
    return Gathered(ranked(rows), [shown[group] for group in sorted(shown)], left)


def _taken(job: Job, show: Show[T], index: Index | None) -> _Found[T]:
    """Read, check and rank one group."""
    expected, found = job
    cells: list[Cell] = []
    skipped: list[Skipped] = []
    for start in range(0, len(found), BATCH):
        for one in read_cells(found[start : start + BATCH], utility=False, index=index):
            if isinstance(one, Cell):
                cells.append(one)
            else:
                skipped.append(one)
    for cell in cells:
        if quick_group(cell.record.spec) != expected:
            raise UsageError(f"cell {cell.record.id!r} changed while it was read: run this again")
    group = group_of(cells[0].record.spec) if cells else ()
    row = row_of(cells, group, index) if cells else None
    return _Found(group, row, show(cells) if cells else None, skipped, len(found), {})


def _parts(look: Look, show: Show[T], index: Index | None) -> Iterator[_Found[T]]:
    """Every group, in any order."""
    if look.processes < 2:
        yield from (_taken(job, show, index) for job in look.jobs())
        return
    import scipy.special  # noqa: F401  what the first cell needs: imported here, it is not imported in every copy

    import harness.records.item_files  # noqa: F401

    root = index.root if index is not None else None
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(look.processes, context, _begin, (show, root))
    left: dict[Future[_Found[T]], Job] = {}
    try:
        left = {pool.submit(_take, job): job for job in look.jobs()}
        for future in as_completed(list(left)):
            yield future.result()
            del left[future]
    except BrokenProcessPool:  # one was killed, as by a system without memory: what is left is done here
        yield from (_taken(job, show, index) for job in [*left.values()] or look.jobs())
    finally:
        pool.shutdown(cancel_futures=True)


_here: dict[str, Any] = {}
"""In a process of `_parts`: what it was started with."""


def _begin(show: Show[Any], root: Path | None) -> None:
    silence()
    _here.update(show=show, index=Index(root).__enter__() if root else None)


def _take(job: Job) -> _Found[Any]:
    index = _here["index"]
    found = _taken(job, _here["show"], index)
    return _Found(found.group, found.row, found.shown, found.skipped, found.folders, index.taken() if index else {})
