"""Folders of results laid together: cells of several machines or people in one folder, clashes shown and not ranked.

Of equal ids, a complete cell is taken before one that is not. Complete cells whose items differ are a clash: none of
them is taken; all are kept under `clashes/<id>/` for a person to look at. (Equal spec, machine and versions give equal
scores, so a clash means that something else than the spec decided a score.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.errors import UsageError
from harness.files import atomic_write_bytes, canonical_json, confined, sha256
from harness.records.cell_files import ITEMS, LOG, RECORD
from harness.records.record import Record
from harness.records.record_files import read_record

What = Literal["taken", "same", "clash", "unreadable"]


@dataclass(frozen=True)
class Merged:
    """What became of one id."""

    id: str
    what: What
    detail: str


@dataclass(frozen=True)
class _Found:
    folder: Path
    record: Record


def merge(sources: Sequence[Path], target: Path) -> list[Merged]:
    """Lay the cells of `sources` together in `target`; what `target` holds already is a source too, the first.

    Returns:
        One entry an id, in order of id: `taken` (from one folder, or the only complete one), `same` (equal in several),
        `clash`, or `unreadable` (no whole record anywhere).

    Raises:
        UsageError: a source is no folder of results, or a record is of another schema version.
    """
    for source in sources:
        if not (source / "cells").is_dir():
            raise UsageError(f"{str(source)!r} holds no results: there is no folder cells in it")
    places = [target, *(source for source in sources if source.resolve() != target.resolve())]
    ids = sorted({path.name for place in places for path in (place / "cells").glob("[!.]*") if path.is_dir()})
    return [_one(cell, places, target) for cell in ids]


def _one(cell: str, places: Sequence[Path], target: Path) -> Merged:
    found = list(_records(cell, places))
    if not found:
        return Merged(cell, "unreadable", "no whole record: " + ", ".join(str(p) for p in places if _there(p, cell)))
    complete = [one for one in found if one.record.status == "complete"]
    specs = {canonical_json(one.record.spec) for one in found}
    items = {sha256(one.folder / ITEMS) for one in complete}
    if len(specs) > 1 or len(items) > 1:
        return _clash(cell, found, target, "specs" if len(specs) > 1 else "scores")
    chosen = (complete or found)[0]
    copy_cell(chosen.folder, confined(target, "cells", cell))
    what: What = "same" if len(complete) > 1 else "taken"
    return Merged(cell, what, f"{chosen.record.status}, from {chosen.folder.parents[1]}")


def _records(cell: str, places: Sequence[Path]) -> Iterator[_Found]:
    for place in places:
        apart = sorted((place / "clashes" / cell).glob("[!.]*"))  # a clash stays one, whatever is merged later
        for folder in (confined(place, "cells", cell), *apart):
            record = read_record(folder)
            if record is not None and record.id == cell:
                yield _Found(folder, record)


def _there(place: Path, cell: str) -> bool:
    return (place / "cells" / cell).is_dir()


def _clash(cell: str, found: Sequence[_Found], target: Path, about: str) -> Merged:
    """Keep every side, each under its record's sha256, and take the cell out of the results."""
    sides = []
    for one in found:
        side = sha256(one.folder / RECORD)[:12]
        copy_cell(one.folder, confined(target, "clashes", cell, side))
        values = one.record.score.attacked.value, one.record.recovery.value
        sides.append(f"{one.folder} (attacked {values[0]}, recovery {values[1]}; kept as {side})")
    (confined(target, "cells", cell) / RECORD).unlink(missing_ok=True)
    return Merged(cell, "clash", f"different {about}: " + "; ".join(sides))


def copy_cell(source: Path, target: Path) -> None:
    """Copy a cell, the record last, so that a merge that is cut off leaves no cell that reads as complete."""
    if source.resolve() == target.resolve():
        return
    target.mkdir(parents=True, exist_ok=True)
    for name in (ITEMS, LOG, RECORD):
        data = (source / name).read_bytes()
        if name == ITEMS:
            (target / RECORD).unlink(missing_ok=True)  # an old record must not vouch for new items
        atomic_write_bytes(target / name, data)
