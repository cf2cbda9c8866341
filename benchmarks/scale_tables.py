"""The figures of `docs/scale.md`, and of `tamper.py`, from what the benchmarks wrote to `docs/data`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def scale(data: Path) -> str:
    """One line a promise; what has not been measured says so."""
    kills = _chaos(_read(data, "chaos")), _chaos(_read(data, "chaos_ray"), " --executor ray")
    rest = _soak(_read(data, "soak")), *_executors(_read(data, "executors") or {})
    return "\n".join(f"- {line}" for line in (*kills, *rest)) + "\n"


def _read(data: Path, name: str) -> Any:
    path = data / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _chaos(found: Any, words: str = "") -> str:
    command = f"python benchmarks/chaos.py{words}"
    if found is None:
        return f"Kills at random moments: not measured yet (`{command}`)."
    kills, cells = found["kills"], found["cells_a_round"] // 2  # each cell with two seeds
    command = f"`{command} --kills {sum(kills.values())} --cells {cells} --seed {found['seed']}`"
    what = ", ".join(f"{count} x {names}" for names, count in (
        ("a job", kills.get("job", 0)), ("a whole command", kills.get("command", 0)),
        ("the fork server", kills.get("server", 0)), ("a worker of Ray", kills.get("worker", 0)),
        ("everything, with files cut short", kills.get("power", 0))) if count)  # fmt: skip
    who = "two commands" if found["commands"] == 2 else "one command"
    return (f"{command}: {sum(kills.values())} kills ({what}; {sum(found['cuts'].values())} files cut) over "
            f"{found['rounds']} matrices of {found['cells_a_round']} cells, {who} on one folder: "
            f"{len(found['broken'])} promises broken. Every cell ended complete, with the items of an undisturbed run "
            "byte for byte, and no complete record was made again."
            if not found["broken"] else f"{command}: broken: {found['broken'][0]}")  # fmt: skip


def _soak(found: Any) -> str:
    command = "`python benchmarks/soak.py`"
    if found is None:
        return f"Thousands of cells in one command: not measured yet ({command})."
    parts = [f"the {'server' if who == 'server' else 'command'} went from {found[who]['resident_mib']['first']:.0f} to "
             f"{found[who]['resident_mib']['last']:.0f} MiB and from {found[who]['open_files']['first']:.0f} to "
             f"{found[who]['open_files']['last']:.0f} open files" for who in ("command", "server")]  # fmt: skip
    return (f"{command}: {found['complete']} of {found['cells']} cells complete with {found['workers']} jobs at once, "
            f"{found['seconds_a_cell']} s a cell; {'; '.join(parts)} (a tenth of the cells to the last).")  # fmt: skip


def tampering(data: Path) -> str:
    """One line: how many changes of published cells were tried, and how many passed."""
    found = _read(data, "tamper")
    kinds = ", ".join(f"{count:,} x {kind}" for kind, count in found["tried"].items())
    return (f"`python benchmarks/tamper.py`: {sum(found['tried'].values()):,} changes of {found['cells']} published "
            f"cells ({kinds}); {len(found['passed'])} passed.")  # fmt: skip


def _executors(found: dict[str, Any]) -> list[str]:
    lines = []
    if "local" in found:
        one = found["local"]
        lines.append(f"`python benchmarks/executors.py local`: {one['seconds_a_job']} s a job that does nothing; a "
                     f"bare process of the same server takes {one['seconds_a_bare_process']} s.")  # fmt: skip
    if "matrix" in found:
        one = found["matrix"]
        lines.append(f"`python benchmarks/executors.py matrix`: {one['cells']} cells of about two seconds, one at a "
                     f"time: {one['ratio']} x the time inside their jobs.")  # fmt: skip
    if "ray-jobs" in found:
        one = found["ray-jobs"]
        lines.append(f"`python benchmarks/executors.py ray-jobs`: {one['seconds_a_job']} s a job that does nothing, "
                     "in a process of its own on a worker of Ray.")  # fmt: skip
    if "ray" in found:
        each = ", ".join(f"{count}: {one['speedup']:.1f}" for count, one in found["ray"].items())
        lines.append(f"`python benchmarks/executors.py ray`: speed-up of jobs that sleep for 20 s, by Ray workers that "
                     f"have started and run them themselves, no process for each: {each}.")  # fmt: skip
    return lines
