"""The three files of a cell, each read once: what checks their sha256 and what parses them see the same bytes."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path

from harness.files import read_regular

RECORD, ITEMS, LOG = "record.json", "items.parquet", "log.txt"
MAX_BYTES = 64 << 20
"""Largest of them that is read."""


class CellFiles:
    """The files in a cell's folder, each read once; an error comes again when the file is asked for again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._found: dict[str, bytes | OSError | ValueError] = {}
        self._hashes: dict[str, bytes] = {}

    def read(self, name: str) -> bytes:
        """The bytes of a file; raises what `read_regular` does."""
        if name not in self._found:
            try:
                self._found[name] = read_regular(f"{self.folder}/{name}", MAX_BYTES)
            except (OSError, ValueError) as error:
                self._found[name] = error
        found = self._found[name]
        if isinstance(found, bytes):
            return found
        raise found

    def sha256(self, name: str) -> bytes:
        """sha256 of a file's bytes; raises what `read` does."""
        if name not in self._hashes:
            data = self.read(name)
            self._hashes[name] = hashlib.sha256(data).digest()
            if name == LOG:  # nobody parses it
                del self._found[name]
        return self._hashes[name]

    @property
    def held(self) -> int:
        """Bytes that are kept."""
        return sum(len(found) for found in self._found.values() if isinstance(found, bytes))

    @cached_property
    def digest(self) -> str | None:
        """sha256 over the folder's name and every byte of record, items and log; None where one cannot be read."""
        total = hashlib.sha256(self.folder.name.encode(errors="surrogateescape"))
        try:
            for name in (RECORD, ITEMS, LOG):
                total.update(self.sha256(name))
        except (OSError, ValueError):
            return None
        return total.hexdigest()
