"""Which cells of a folder belong together: those of one row of the ranking.

It imports next to nothing, so that a process of its own can look at ten thousand records while the first one imports
what reads and ranks them.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import orjson

from harness.errors import UsageError
from harness.files import canonical_json, read_regular
from harness.lifeline import die_with_parent
from harness.progress import Progress
from harness.records.cell_files import MAX_BYTES, RECORD
from harness.records.strict_json import loads

Group = tuple[str, ...]
"""What a row is of: canonical JSON of the model, the own task of a classifier, task, budget, defense and corpus."""
Found = Sequence[tuple[Path, bool]]
"""Folders of cells, ordered, and of each whether it lies outside of the folder of results."""
Job = tuple[str, Found]
"""What `quick_group` says of these folders, as far as a look at their records tells; empty where it tells nothing."""


def group_of(spec: Mapping[str, Any]) -> Group:
    """The row that a cell with this spec belongs to."""
    return tuple([canonical_json(spec.get(part)) for part in _parts(spec)])


def quick_group(spec: Mapping[str, Any]) -> str:
    """Equal where `group_of` is, in a tenth of its time."""
    try:
        return orjson.dumps([spec.get(part) for part in _parts(spec)], option=orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONEncodeError:  # a lone surrogate
        return "\n".join(group_of(spec))


def _parts(spec: Mapping[str, Any]) -> tuple[str, ...]:
    own = ("own",) if "own" in spec else ()  # what a classifier was made for: of another purpose, another model
    return ("model", *own, "task", "budget", "defense", "corpus")


class Look:
    """Looks for the groups of a folder: from now on in another process, or when they are asked for.

    Raises:
        UsageError: there is no cell.
    """

    def __init__(self, folder: Path, only: Collection[str] | None = None, processes: int = 1) -> None:
        """
        Args:
            folder: an output folder.
            only: ids of the cells that take part; None is all.
            processes: that may work side by side, where this system can copy a running process (Linux).
        """
        self.folder, self.only, self.found = folder, only, folders(folder, only)
        self.processes = processes if sys.platform == "linux" else 1
        self._end: Connection | None = None
        if self.processes > 1:
            self._end = _begun(self.found)

    def jobs(self) -> list[Job]:
        """The folders by group, the largest group first."""
        told = None
        if self._end is not None:
            end, self._end = self._end, None
            with end, suppress(EOFError, OSError):  # it was killed
                told = end.recv()
        return [(group, [self.found[place] for place in places]) for group, places in told or _jobs(self.found)]


def folders(folder: Path, only: Collection[str] | None = None) -> Found:
    """The folders of the cells.

    Raises:
        UsageError: there is none.
    """
    found = [(path, leaves) for path, leaves in _folders(folder) if only is None or path.name in only]
    if not found:
        raise UsageError(f"{str(folder)!r} holds no results: there is no cells/<id>/{RECORD} in it")
    return found


def _folders(folder: Path) -> Found:
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


def clashes(folder: Path, only: Collection[str] | None = None) -> list[str]:
    """Ids of cells that `harness merge` took out of the results, because folders gave them different scores."""
    try:
        with os.scandir(folder / "clashes") as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False)
                          and not entry.name.startswith(".") and (only is None or entry.name in only))  # fmt: skip
    except OSError:
        return []


def _jobs(found: Found) -> list[tuple[str, list[int]]]:
    """Places of the folders by group."""
    groups: dict[str, list[int]] = defaultdict(list)
    for place, (path, leaves) in enumerate(found):
        groups["" if leaves else _group(path)].append(place)
    return sorted(groups.items(), key=lambda job: (-len(job[1]), job[0]))


def _group(path: Path) -> str:
    """The group of a cell, if nothing is wrong with it; empty where something is for sure."""
    try:
        data = read_regular(f"{path}/{RECORD}", MAX_BYTES)
        try:
            document = orjson.loads(data)
        except orjson.JSONDecodeError:
            document = loads(data)
        return quick_group(document["spec"])
    except (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError):
        return ""


def _begun(found: Found) -> Connection | None:
    """Where `_jobs` of these will come out, of another process; None where none can be made."""
    try:
        here, there = multiprocessing.Pipe(duplex=False)
        with there:
            process = multiprocessing.get_context("fork").Process(
                target=_send, args=(found, here, there, os.getpid()), daemon=True)  # fmt: skip
            process.start()
    except OSError:
        return None
    return here


def _send(found: Found, here: Connection, there: Connection, parent: int) -> None:
    begin_copy(parent)
    here.close()  # or nobody would ever see that nobody reads
    with suppress(BrokenPipeError):
        there.send(_jobs(found))


def begin_copy(parent: int) -> None:
    """First thing in a copied process: it ends with the first one, and has streams of its own.

    A thread of the first one may have held the lock of those that it had.
    """
    die_with_parent(parent)
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123


MANY = 1000
"""From so many cells on, people wait for a table and want to see why."""


def progress_over(folder: Path) -> Progress:
    """What shows how far a reading of `folder` is; quiet where there are few cells. Nothing is read."""
    try:
        number = sum(1 for _ in (folder / "cells").iterdir())
    except OSError:
        number = 0
    return Progress(quiet=number < MANY)
