"""What a leaderboard shows of a folder, gathered group by group, so that no more than a group is held at once.

A group is a row of the ranking with its cells: nothing in one depends on another but names and ranks, which come last.
So many groups can be taken by processes side by side. What comes out is the same for any number of them.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from harness.numbers.robustness import Cell
from harness.progress import Said
from harness.threads import blas_threads
from leaderboards.groups import Group, Job, Look, begin_copy, group_of, quick_group
from leaderboards.index import Index
from leaderboards.load import Skipped, read_cells, with_clashes
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
    strays: list[tuple[str, tuple[Path, bool]]]
    """Folders whose cell came to be of another group since they were looked at, and which."""
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
        UsageError: there is not one record that this version can read.
    """
    rows: dict[Group, BoardRow] = {}
    shown: dict[Group, T] = {}
    skipped: list[Skipped] = []
    strays: dict[str, list[tuple[Path, bool]]] = defaultdict(list)
    if look.processes > 1:  # what the first cell needs: imported while another process looks, and not in each copy
        import scipy.special  # noqa: F401

        import harness.records.item_files  # noqa: F401

    jobs, done = look.jobs(), 0

    def take(part: _Found[T]) -> None:
        if part.row is not None and part.shown is not None:
            rows[part.group], shown[part.group] = part.row, part.shown
        skipped.extend(part.skipped)
        if index is not None:
            index.add(part.entries)

    with blas_threads(1):
        for part in _parts(jobs, look.processes, show, index):
            take(part)
            for group, one in part.strays:
                strays[group].append(one)
            done += part.folders
            if progress is not None:
                progress("reading and ranking", done, len(look.found))
        looked = dict(jobs)
        for group, late in strays.items():  # a matrix runs on while its board is built: such a group is taken again
            part = _taken((group, sorted([*looked.get(group, ()), *late])), show, index)
            known = {one.folder for one in skipped}
            take(replace(part, skipped=[one for one in part.skipped if one.folder not in known]))
            skipped += [Skipped(path.name, "changed while it was read") for _, (path, _) in part.strays]
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
    strays: list[tuple[str, tuple[Path, bool]]] = []
    for place, one in zip(found, read_cells(found, utility=False, index=index), strict=True):
        if isinstance(one, Skipped):
            skipped.append(one)
        elif (group := quick_group(one.record.spec)) != expected:
            strays.append((group, place))
        else:
            cells.append(one)
    if not cells:
        return _Found((), None, None, skipped, strays, len(found), {})
    key = group_of(cells[0].record.spec)
    return _Found(key, row_of(cells, key, index), show(cells), skipped, strays, len(found), {})


def _parts(jobs: Sequence[Job], processes: int, show: Show[T], index: Index | None) -> Iterator[_Found[T]]:
    """Every group, in any order."""
    left = dict(enumerate(jobs))
    if min(processes, len(jobs)) > 1:
        for number, part in _parallel(jobs, min(processes, len(jobs)), show, index.root if index else None):
            yield part
            del left[number]
    yield from (_taken(job, show, index) for job in left.values())


def _parallel(
    jobs: Sequence[Job], processes: int, show: Show[T], root: Path | None
) -> Iterator[tuple[int, _Found[T]]]:
    """Groups by number, from copies of this process; not all, where one is killed or none can be made."""
    before = multiprocessing.active_children()
    try:
        pool = ProcessPoolExecutor(processes, multiprocessing.get_context("fork"), _begin, (show, root, os.getpid()))
        futures = {pool.submit(_take, job): number for number, job in enumerate(jobs)}
    except (OSError, ImportError, NotImplementedError):  # no process, or nothing to talk to one by
        for child in set(multiprocessing.active_children()) - set(before):
            child.terminate()
        return
    try:
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool:  # one was killed, as by a system without memory
        return
    finally:
        pool.shutdown(cancel_futures=True)


_here: dict[str, Any] = {}
"""In a process of `_parallel`: what it was started with."""


def _begin(show: Show[Any], root: Path | None, parent: int) -> None:
    begin_copy(parent)
    _here.update(show=show, index=Index(root).__enter__() if root else None)


def _take(job: Job) -> _Found[Any]:
    index = _here["index"]
    found = _taken(job, _here["show"], index)
    return replace(found, entries=index.taken()) if index else found
