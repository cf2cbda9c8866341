"""Writing to the output folder: atomic, confined to it, and refused early where it cannot work."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Any

from harness.errors import UsageError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,254}")
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write `data` so that `path` holds either its old content or all of the new, even if the power fails."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)  # mkstemp gives 0600; results are meant to be read
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def atomic_write_text(path: Path, text: str) -> None:
    """`atomic_write_bytes` of `text` in UTF-8; a lone surrogate is written as its escape."""
    atomic_write_bytes(path, text.encode("utf-8", "backslashreplace"))


def atomic_write_json(path: Path, value: Any) -> None:
    """`value` as strict JSON (no NaN), indented, keys in the order given.

    Raises:
        ValueError: NaN or infinity somewhere in `value`.
    """
    atomic_write_text(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False))


def canonical_json(value: Any) -> str:
    """One spelling for equal values: sorted keys, no spaces, ASCII, no NaN. What gets hashed."""
    return _CANONICAL.encode(value)


def sha256(path: Path) -> str:
    """sha256 of a file's bytes, lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_regular(path: Path | str, limit: int) -> bytes:
    """The bytes of a regular file that is no link.

    Raises:
        OSError: it is not there, or cannot be read.
        ValueError: it is a link, a folder, a pipe or a device, or larger than `limit` bytes.
    """
    found = os.lstat(path)  # before it is opened: a pipe without a writer would wait for ever
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{Path(path).name} is {'a link' if stat.S_ISLNK(found.st_mode) else 'not a regular file'}")
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        data = os.read(handle, min(found.st_size, limit) + 1)
        while len(data) != found.st_size and len(data) <= limit and (more := os.read(handle, limit + 1 - len(data))):
            data += more  # it grows while it is read, or came in parts
    finally:
        os.close(handle)
    if len(data) > limit:
        raise ValueError(f"{Path(path).name} is larger than {limit} bytes")
    return data


def confined(folder: Path, *names: str) -> Path:
    """`folder / names...`, where no name can lead out of `folder`.

    Raises:
        UsageError: a name that is empty, starts with a dot, or holds anything but letters, digits and `._+-`;
            or a link inside the folder that leads out of it.
    """
    for name in names:
        if not _NAME.fullmatch(name):
            raise UsageError(f"name {name!r} cannot be part of an output path: use letters, digits and ._+-")
    path = folder.joinpath(*names)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"output path {'/'.join(names)!r} leads out of the output folder")
    return path


def check_output_folder(folder: Path, need_bytes: int = 64 * 2**20, what: str = "output") -> None:
    """Make `folder`, and find out before any work is done whether results can be written there.

    Args:
        folder: the folder.
        need_bytes: least space.
        what: what it is for, in messages.

    Raises:
        UsageError: the folder cannot be made or written to, or has less than `need_bytes` free.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"x" * 4096)
            probe.flush()
            os.fsync(probe.fileno())
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise UsageError(f"{what} folder {str(folder)!r} cannot be written: {error.strerror or error}") from None
    if free < need_bytes:
        raise UsageError(f"{what} folder {str(folder)!r} has {free} bytes free; at least {need_bytes} are needed")


def check_output_file(path: Path) -> None:
    """See that `path` can become a file, before it is computed what goes into it.

    Raises:
        UsageError: it is a folder, or its folder cannot be made or written to.
    """
    if path.is_dir():
        raise UsageError(f"output file {str(path)!r} is a folder")
    check_output_folder(path.parent, need_bytes=0)


def cannot_write(error: OSError) -> bool:
    """Whether the disk is full (or over quota, or read-only): no fault of what was being computed."""
    return error.errno in _NO_ROOM


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; some file systems refuse to sync a folder, and then the rename is still atomic."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        return
    finally:
        os.close(handle)
