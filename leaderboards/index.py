"""What earlier builds of a leaderboard found out, so that the next one does not do it again.

Two sorts of entries: that a cell's files were read strictly and found whole, and a row of the ranking. An entry's key
is a sha256 over every byte that the entry follows from, the code that made it included. It cannot be out of date: the
files are read and hashed each time, and what changed in any byte has another key, whatever its dates and size say.

An entry holds a sha256 of itself; what is cut short or altered counts as absent. That is no defence against somebody
who writes to this cache on purpose, so `harness verify` never looks here. Nor is a cache that cannot be read or written
an error: everything is then found out anew.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping
from contextlib import closing, suppress
from functools import cache as memoize
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.cache import code_digest, digest_of
from harness.records.provenance import machine

FOLDER = "leaderboard"
"""Below the cache of shared work."""
_PACKAGES = ("numpy", "scipy", "pyarrow", "pydantic", "pydantic_core", "orjson")
_TABLE = "CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value BLOB, seal BLOB) WITHOUT ROWID"
_WAIT = 5.0
"""Seconds to wait for another process that writes."""


@memoize
def environment() -> str:
    """Digest of what an entry follows from beside files: our code, what computes and parses for it, the processor."""
    about = machine()
    return digest_of({"code": code_digest(("harness", "leaderboards")), "python": about.python, "cpu": about.cpu,
                      **{name: version(name) for name in _PACKAGES}})[:24]  # fmt: skip


class Index:
    """Entries in `root/leaderboard/<environment>.sqlite`; as a context, it writes new ones at the end."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / FOLDER / f"{environment()}.sqlite"
        self._new: dict[str, bytes] = {}
        self._old: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        if self.path.is_file():
            with suppress(sqlite3.Error):
                self._old = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True, timeout=_WAIT)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._old is not None:
            self._old.close()
            self._old = None
        if self._new:
            with suppress(OSError, sqlite3.Error):
                self._write()

    def get(self, key: str) -> bytes | None:
        """The value of an entry; None where there is none to trust."""
        if key in self._new:
            return self._new[key]
        if self._old is None:
            return None
        try:
            found = self._old.execute("SELECT value, seal FROM entries WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error:
            return None
        return found[0] if found and found[1] == _seal(key, found[0]) else None

    def put(self, key: str, value: bytes = b"") -> None:
        """Add an entry, or replace one that is not to be trusted."""
        self._new[key] = value

    def taken(self) -> dict[str, bytes]:
        """The new entries, for an index in another process to `add`; they are gone here."""
        new, self._new = self._new, {}
        return new

    def add(self, entries: Mapping[str, bytes]) -> None:
        """Add entries that another index has `taken`."""
        self._new.update(entries)

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rows = [(key, value, _seal(key, value)) for key, value in self._new.items()]
        try:
            self._insert(rows)
        except sqlite3.OperationalError:  # another process writes for long, or no file can be made here
            raise
        except sqlite3.DatabaseError:  # no database any more
            self.path.unlink()
            self._insert(rows)

    def _insert(self, rows: list[tuple[str, bytes, bytes]]) -> None:
        with closing(sqlite3.connect(self.path, timeout=_WAIT)) as database, database:
            database.execute(_TABLE)
            database.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", rows)


def _seal(key: str, value: object) -> bytes:
    return hashlib.sha256(key.encode() + (value if isinstance(value, bytes) else b"?")).digest()
