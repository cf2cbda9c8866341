"""Folders as bytes, for machines that share no file system: cache entries to a job, a cell's files back from it."""

from __future__ import annotations

import io
import shutil
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock

from harness.cache import is_whole
from harness.files import confined


def pack(folders: Iterable[Path], root: Path) -> bytes:
    """Folders below `root`, with everything in them, as an uncompressed archive."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for folder in sorted(folders):
            archive.add(folder, folder.relative_to(root).as_posix())
    return sink.getvalue()


def unpack(parcel: bytes, target: Path) -> None:
    """The opposite of `pack`; what would leave `target` is refused (`tarfile`'s filter `data`)."""
    with tarfile.open(fileobj=io.BytesIO(parcel)) as archive:
        archive.extractall(target, filter="data")


def add_entries(parcel: bytes, cache: Path) -> None:
    """Put a parcel of cache entries into a cache, as if they had been made there; those that are there stay."""
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".parcel-") as name:
        unpack(parcel, Path(name))
        for entry in sorted(path for path in Path(name).glob("*/*") if path.is_dir()):
            final = confined(cache, entry.parent.name, entry.name)
            final.parent.mkdir(exist_ok=True)
            with FileLock(f"{final}.lock"):
                if is_whole(entry) and not is_whole(final):
                    shutil.rmtree(final, ignore_errors=True)
                    entry.rename(final)
