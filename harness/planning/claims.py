"""Claims: who is working on what in an output folder, so that two commands on one folder share the work.

A claim is a lock of the operating system on `out/claims/<job>`, which ends with its process, however that one ends.
Where the file system has no such locks, or they do not reach the other machines (some network file systems), it is a
lease: a file with pid and host that a heartbeat keeps fresh, and that others may take when it has not been for
`LEASE_SECONDS`. A lease that ran out while its holder was only frozen lets a job be done twice; records and cache
entries are renamed into place whole, and equal specs give equal scores, so that costs time and nothing else.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from filelock import BaseFileLock, SoftFileLease, Timeout, UnixFileLock

from harness.files import confined

Mode = Literal["auto", "lock", "lease"]
LEASE_SECONDS = 60.0
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}


class Claims:
    """The claims of one output folder."""

    def __init__(self, out: Path, mode: Mode = "auto", *, lease_seconds: float = LEASE_SECONDS) -> None:
        """Make the folder, and find out what it can do.

        Args:
            out: the output folder.
            mode: `lock`, `lease`, or `auto`: locks where the file system has them. All commands on a folder must agree.
            lease_seconds: how long a lease lives without a heartbeat.
        """
        self._out, self._lease_seconds = out, lease_seconds
        (out / "claims").mkdir(parents=True, exist_ok=True)
        self.mode: Mode = ("lock" if _has_locks(out / "claims") else "lease") if mode == "auto" else mode
        self._watched: dict[str, BaseFileLock] = {}

    def free(self, job: str) -> bool:
        """Whether nobody holds the claim at this moment."""
        lock = self._watched.get(job) or self._lock(job)  # a lease is stale once this very object saw it rest so long
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self._watched[job] = lock
            return False
        lock.release()
        self._watched.pop(job, None)
        return True

    @contextmanager
    def held(self, job: str) -> Iterator[bool]:
        """Inside, the claim is held; yields False, and holds nothing, where another process holds it."""
        lock = self._lock(job)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            with suppress(OSError):  # a lease that is lost is not worth a record
                lock.release()

    def _lock(self, job: str) -> BaseFileLock:
        path = confined(self._out, "claims", job)
        if self.mode == "lease":
            return SoftFileLease(path, lease_duration=self._lease_seconds)
        return UnixFileLock(path)


def _has_locks(folder: Path) -> bool:
    import fcntl
    import tempfile

    with tempfile.TemporaryFile(dir=folder) as probe:
        try:
            fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return False
            raise
    return True
