"""Files of the data pack, or their originals on the hub, read through the `datasets` library. Imports no torch.

A `Source` names a data set's files in the pack's layout and where the hub has it. The pack is used unless
`HARNESS_ONLINE=1` asks for the hub.
"""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UsageError

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One split: rows of `file` in the pack (with `part`, only those), or the split `hub_split` on the hub."""

    file: str
    hub_split: str
    part: str | None = None


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data set: its split for the attacker (`train`), and the one that is reported (`test`).

    `selection` is the official one where there is one; elsewhere a task carves it out of `train`. A `hub` of "text" is
    a plain text file at the address `hub_config`.
    """

    name: str
    hub: str
    hub_config: str | None = None
    train: Piece
    test: Piece
    selection: Piece | None = None
    from_hub: Callable[[Row], Row] = dict
    """Turns a row of the hub into a row of the pack's layout."""

    def rows(self, which: str, data_dir: Path | None) -> list[Row]:
        """All rows of `train`, `selection` or `test`, in file order.

        Raises:
            UsageError: neither the pack nor the hub is there; says how to get it.
        """
        piece: Piece = getattr(self, which)
        if online():
            return [self.from_hub(row) for row in hub_rows(self.hub, self.hub_config, piece.hub_split)]
        rows = pack_rows(piece.file, data_dir, wanted_by=self.name, hub=self.hub)
        chosen = [row for row in rows if piece.part is None or row["part"] == piece.part]
        if not chosen:
            raise UsageError(f"{self.name}: {piece.file} of the data pack has no row for {which}")
        return chosen


def online() -> bool:
    """Whether the user asked for the hub (`HARNESS_ONLINE=1`)."""
    return os.environ.get("HARNESS_ONLINE", "") not in ("", "0")


def pack_rows(file: str, data_dir: Path | None, *, wanted_by: str, hub: str) -> list[Row]:
    """Rows of a `.jsonl.gz` file of the pack, or the lines of a `.txt.gz` file as `{"text": line}`.

    Raises:
        UsageError: the file is not there (says how to get it), empty or damaged.
    """
    path = None if data_dir is None else Path(data_dir) / file
    if path is None or not path.is_file():
        found = "no data pack is given" if data_dir is None else f"{str(data_dir)!r} has no such file"
        raise UsageError(f"{wanted_by} needs {file} of the data pack, and {found}: pass --data-dir or set "
                         f"HARNESS_DATA, or set HARNESS_ONLINE=1 to load {hub} from the hub")  # fmt: skip
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError

    kind = "json" if ".jsonl" in path.name else "text"
    logging.getLogger("datasets.packaged_modules").setLevel(logging.CRITICAL)  # what it logs, it also raises
    try:
        # Streaming reads the file as it is: no Arrow copy lands in a cache folder that may not be writable.
        return list(load_dataset(kind, data_files=str(path), split="train", streaming=True))
    except StopIteration:
        raise UsageError(f"{wanted_by} needs {file} of the data pack, and {path} is empty") from None
    except (OSError, EOFError, ValueError, zlib.error, DatasetGenerationError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"{wanted_by} needs {file} of the data pack, and {path} is damaged: {reason}") from None


def hub_rows(path: str, config: str | None, split: str) -> list[Row]:
    """Rows of a hub data set, by the `datasets` library and its cache.

    Raises:
        UsageError: the hub cannot be reached, or has no such data set.
    """
    from datasets import load_dataset

    try:
        if path == "text":
            return list(load_dataset(path, data_files=config, split=split))
        return list(load_dataset(path, config, split=split))
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"HARNESS_ONLINE=1, but {path} could not be loaded: {reason}") from error
