"""Seal the records of schema version 1 in folders of results, once: `python -m leaderboards.seal RESULTS...`

A record gets its seal, and with it version 2, only where nothing contradicts it: its files have their sha256, and every
figure follows from its items. No number, item or log is changed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from harness.files import atomic_write_text
from harness.records.cell_files import RECORD
from harness.records.record import SCHEMA_VERSION, dumps
from harness.records.record_files import sealed
from leaderboards.load import load_results
from leaderboards.verify import verify_cell


def seal_folder(folder: Path) -> tuple[int, list[str]]:
    """How many records were sealed, and why others without a seal were not, a line each.

    Raises:
        UsageError: no results there.
    """
    done, left = 0, []
    for cell in load_results(folder).cells:
        if cell.record.seal is not None:
            continue
        mismatches = verify_cell(cell)
        if mismatches:
            left.append(str(mismatches[0]))
            continue
        new = sealed(cell.record.model_copy(update={"schema_version": SCHEMA_VERSION}))
        atomic_write_text(folder / "cells" / new.id / RECORD, dumps(new))
        done += 1
    return done, left


def main(folders: Sequence[str]) -> int:
    """Seal every folder; exit status 1 when a record was left without a seal."""
    status = 0
    for folder in folders:
        done, left = seal_folder(Path(folder))
        print(f"{folder}: {done} sealed, {len(left)} left as they are", *left, sep="\n  ")
        status |= bool(left)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
