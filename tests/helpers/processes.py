"""What runs below a process, as Linux shows it under `/proc`."""

from __future__ import annotations

from pathlib import Path


def parents() -> dict[int, int]:
    """Parent of every process."""
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            found[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
    return found


def children(pid: int) -> set[int]:
    """Processes that `pid` started."""
    return {child for child, parent in parents().items() if parent == pid}


def descendants(pid: int) -> list[int]:
    """Processes below `pid`."""
    of, found = parents(), {pid}
    while more := {child for child, parent in of.items() if parent in found} - found:
        found |= more
    return sorted(found - {pid})


def command_line(pid: int) -> bytes:
    """What a process was started with; empty when it is gone."""
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_bytes()
    except OSError:
        return b""


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
