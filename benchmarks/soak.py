"""Thousands of cheap cells in one command: do memory and open files stay flat, and what does a cell cost?

    python benchmarks/soak.py [--cells 2000] [--workers 2] [-o docs/data/soak.json]

Looks at the command and at the server that it forks jobs from after every hundredth part of the cells. The figures of
the first tenth are left out: caches of the interpreter fill then.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
from cheap_cells import cheap_grid, cheap_model, environment, matrix_command
from processes import command_line, descendants

MIB = 1 << 20


def sample(pid: int) -> dict[str, float]:
    """Resident MiB, open files and threads of a process; what the kernel calls them."""
    folder = Path("/proc") / str(pid)
    status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line)
    return {"resident_mib": int(status["VmRSS"].split()[0]) / 1024, "threads": int(status["Threads"]),
            "open_files": len(list((folder / "fd").iterdir()))}  # fmt: skip


def watch(process: subprocess.Popen[bytes], done: Path, cells: int) -> list[dict[str, Any]]:
    """Samples of the command and its server until the command ends."""
    samples: list[dict[str, Any]] = []
    began, step = time.monotonic(), max(1, cells // 100)
    while process.poll() is None:
        time.sleep(0.5)
        finished = sum(1 for _ in done.glob("*/record.json"))
        if finished < (len(samples) + 1) * step:
            continue
        servers = [pid for pid in descendants(process.pid) if b"forkserver import main" in command_line(pid)]
        try:
            samples.append({"cells": finished, "seconds": round(time.monotonic() - began, 1),
                            "command": sample(process.pid), "server": sample(min(servers))})  # fmt: skip
        except (OSError, KeyError, ValueError):  # it ended in this moment
            continue
        print(json.dumps(samples[-1]), file=sys.stderr, flush=True)
    return samples


def summary(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """By process and figure: after a tenth of the cells, at the end, and the largest in between."""
    kept = samples[len(samples) // 10 :]
    return {who: {what: {"first": round(kept[0][who][what], 1), "last": round(kept[-1][who][what], 1),
                         "largest": round(max(one[who][what] for one in kept), 1)}
                  for what in ("resident_mib", "open_files", "threads")}
            for who in ("command", "server")}  # fmt: skip


def main() -> int:
    """Run, report, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    with TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        grid = cheap_grid(cheap_model(folder / "model"), [{"number": number} for number in range(args.cells)])
        command = matrix_command(grid, folder, "--workers", str(args.workers), "--json")
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        samples = watch(process, folder / "out" / "cells", args.cells)
        complete = sum(b'"status": "complete"' in path.read_bytes() for path in folder.glob("out/cells/*/record.json"))
    figures = {"cells": args.cells, "complete": complete, "workers": args.workers, "status": process.returncode,
               **summary(samples), "seconds_a_cell": round(samples[-1]["seconds"] / samples[-1]["cells"], 3),
               "samples": samples}  # fmt: skip
    text = json.dumps(figures, indent=1)
    print(json.dumps({key: value for key, value in figures.items() if key != "samples"}, indent=1))
    if args.output:
        args.output.write_text(text + "\n")
    return int(process.returncode != 0 or complete != args.cells)


if __name__ == "__main__":
    sys.exit(main())
