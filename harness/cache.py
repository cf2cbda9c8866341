"""Content-addressed cache of shared work: bases' utilities, locks, references. Safe under several processes.

An entry is a folder named by the hash of its key. It is built in a work folder under a file lock and renamed into
place when whole, with the sha256 of every file in `entry.json`; a hit is checked against it, so a partial or altered
entry is rebuilt and never served.

The work folder outlives a kill: what a training run saved there for resuming is found again.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable
from functools import cache as memoize
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock

from harness.files import canonical_json, sha256
from harness.settings import Settings

_ROOMS = ("defenses", "attacks", "harness")
_NOT_CODE = {"cli"}


def digest_of(value: Any) -> str:
    """sha256 of the canonical JSON of a value or a settings model, as hex."""
    if isinstance(value, Settings):
        value = value.model_dump(mode="json")
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


@memoize
def environment() -> dict[str, str]:
    """What cached results depend on beside their key: our code, the numerical libraries, and Python's own texts."""
    found = {"python": platform.python_version()}
    for name in ("torch", "transformers", "accelerate", "peft", "lm_eval", "deepspeed", "bitsandbytes"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found | {"code": code_digest()}


@memoize
def code_digest(rooms: tuple[str, ...] = _ROOMS) -> str:
    """sha256 over the source of the rooms that produce numbers (the command line is left out)."""
    root, total = Path(__file__).parent.parent, hashlib.sha256()
    for room in rooms:
        for path in sorted((root / room).rglob("*.py")):
            if not _NOT_CODE & set(path.relative_to(root).parts):
                total.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


class Cache:
    """Entries under `root/<kind>/<hash>/`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def get_or_make(self, kind: str, key: dict[str, Any], make: Callable[[Path, Path], None]) -> tuple[Path, bool]:
        """The entry's folder, and whether it was there already.

        Args:
            kind: subfolder, for people who look inside.
            key: everything the entry depends on (JSON); our code and library versions are added.
            make: called as `make(entry_folder, work_folder)` when there is no whole entry; writes the entry's files.
        """
        key = {**key, "environment": environment()}
        final = self.root / kind / digest_of(key)[:24]
        final.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{final}.lock"):
            if is_whole(final):
                return final, True
            shutil.rmtree(final, ignore_errors=True)
            entry, work = final.with_suffix(".new"), final.with_suffix(".work")
            shutil.rmtree(entry, ignore_errors=True)
            entry.mkdir()
            work.mkdir(exist_ok=True)
            make(entry, work)
            _seal(entry, key)
            entry.rename(final)
            shutil.rmtree(work, ignore_errors=True)
        return final, False


def is_whole(entry: Path) -> bool:
    """Whether every file that `entry.json` names is there with its sha256."""
    try:
        files: dict[str, str] = json.loads((entry / "entry.json").read_text())["files"]
        return all(sha256(entry / name) == digest for name, digest in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _seal(entry: Path, key: dict[str, Any]) -> None:
    files = {p.relative_to(entry).as_posix(): sha256(p) for p in sorted(entry.rglob("*")) if p.is_file()}
    for name in files:
        _sync(entry / name)
    (entry / "entry.json").write_text(json.dumps({"key": key, "files": files}, indent=1, sort_keys=True))
    _sync(entry / "entry.json")


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def default_root() -> Path:
    """`HARNESS_CACHE`, else `lockbench` in the user's cache folder."""
    given = os.environ.get("HARNESS_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lockbench"
