"""What a leaderboard shows of a folder, gathered group by group, so that no more than a group is held at once.

A group is a row of the ranking with its cells: nothing in one depends on another but names and ranks, which come last.
So many groups can be taken by processes side by side. What comes out is the same for any number of them.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import orjson

from harness.errors import UsageError
from harness.files import read_regular
from harness.numbers.robustness import Cell
from harness.progress import Said
from harness.records.cell_files import MAX_BYTES, RECORD
from harness.records.strict_json import loads
from harness.threads import blas_threads
from leaderboards.index import Index
from leaderboards.load import BATCH, Skipped, folders, read_cells
from leaderboards.ranking import BoardRow, Group, group_of, ranked, row_of

T = TypeVar("T")
Show = Callable[[Sequence[Cell]], T]
"""What is kept of the cells of a group."""
_Job = tuple[Group, list[tuple[Path, bool]]]


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
    folder: Path, show: Show[T], only: Collection[str] | None = None, *, index: Index | None = None,
    processes: int = 1, progress: Said | None = None,
) -> Gathered[T]:  # fmt: skip
    """Read, check and rank.

    Args:
        folder: an output folder.
        show: what to keep of the cells of a group; with more processes than one, a function of a module.
        only: ids of the cells that take part; None is all.
        index: what was found before; new entries are added.
        processes: that work side by side, where this system can copy a running process (Linux).
        progress: hears of it.

    Raises:
        UsageError: the folder has no cells, or not one whose record this version can read; or a file changed meanwhile.
    """
    found = folders(folder, only)
    jobs = _jobs(found)
    rows: dict[Group, BoardRow] = {}
    shown: dict[Group, T] = {}
    skipped: list[Skipped] = []
    done = 0
    with blas_threads(1):
        for part in _parts(jobs, show, index, processes if sys.platform == "linux" else 1):
            if part.row is not None and part.shown is not None:
                rows[part.group], shown[part.group] = part.row, part.shown
            skipped += part.skipped
            if index is not None:
                index.add(part.entries)
            done += part.folders
            if progress is not None:
                progress("reading and ranking", done, len(found))
    skipped.sort(key=lambda one: one.folder)
    refused = [one.refused for one in skipped if one.refused]
    if len(refused) == len(found):
        raise refused[0]
    return Gathered(ranked(rows), [shown[group] for group in sorted(shown)], skipped)


def _jobs(found: Sequence[tuple[Path, bool]]) -> list[_Job]:
    """The folders by group, the largest group first, as far as a look at their records tells."""
    groups: dict[Group, list[tuple[Path, bool]]] = defaultdict(list)
    for path, leaves in found:
        groups[() if leaves else _group(path)].append((path, leaves))
    return sorted(groups.items(), key=lambda job: (-len(job[1]), job[0]))


def _group(path: Path) -> Group:
    """The group of a cell, if nothing is wrong with it; empty where something is for sure."""
    try:
        data = read_regular(f"{path}/{RECORD}", MAX_BYTES)
        try:
            document = orjson.loads(data)
        except orjson.JSONDecodeError:
            document = loads(data)
        return group_of(document["spec"])
    except (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError):
        return ()


def _taken(job: _Job, show: Show[T], index: Index | None) -> _Found[T]:
    """Read, check and rank one group."""
    group, found = job
    cells: list[Cell] = []
    skipped: list[Skipped] = []
    for start in range(0, len(found), BATCH):
        for one in read_cells(found[start : start + BATCH], utility=False, index=index):
            if isinstance(one, Cell):
                cells.append(one)
            else:
                skipped.append(one)
    for cell in cells:
        if group_of(cell.record.spec) != group:
            raise UsageError(f"cell {cell.record.id!r} changed while it was read: run this again")
    row = row_of(cells, group, index) if cells else None
    return _Found(group, row, show(cells) if cells else None, skipped, len(found), {})


def _parts(jobs: Sequence[_Job], show: Show[T], index: Index | None, processes: int) -> Iterator[_Found[T]]:
    """Every group, in any order."""
    left = set(range(len(jobs)))
    if min(processes, len(jobs)) > 1:
        root = index.root if index is not None else None
        context = multiprocessing.get_context("fork")  # what is here is there, without being sent or imported again
        pool = ProcessPoolExecutor(processes, context, _begin, (jobs, show, root))
        try:
            futures = {pool.submit(_take, number): number for number in left}
            for future in as_completed(futures):
                yield future.result()
                left.discard(futures[future])
        except BrokenProcessPool:  # one was killed, as by a system without memory: what is left is done here
            pass
        finally:
            pool.shutdown(cancel_futures=True)
    for number in sorted(left):
        yield _taken(jobs[number], show, index)


_here: dict[str, Any] = {}
"""In a process of `_parts`: what it was started with."""


def _begin(jobs: Sequence[_Job], show: Show[Any], root: Path | None) -> None:
    # A thread of the first process may have held the lock of its streams when this one was made.
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    _here.update(jobs=jobs, show=show, index=Index(root).__enter__() if root else None)


def _take(number: int) -> _Found[Any]:
    index = _here["index"]
    found = _taken(_here["jobs"][number], _here["show"], index)
    return _Found(found.group, found.row, found.shown, found.skipped, found.folders, index.taken() if index else {})
