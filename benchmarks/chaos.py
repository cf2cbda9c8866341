"""Kill commands, jobs and the fork server at random moments, cut files short, and see that no result is lost or wrong.

    python benchmarks/chaos.py [--kills 100] [--cells 24] [--seed 0] [-o docs/data/chaos.json]
    python benchmarks/chaos.py --executor ray --kills 10 -o docs/data/chaos_ray.json

Two commands share one folder (one on Ray, which starts its cluster), and are given again when they are killed. A power
cut kills all of them, with all they started, and cuts files of the folder and of the cache at a random byte, the
half-written ones too. A round ends when every cell is complete; rounds go on until there were enough kills. Broken
promises end the script with status 1:
a complete record whose scores are not those of a run that nobody disturbed; a complete record that changes although its
files were not cut; a round that does not come to an end; a process that outlives its command.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
from cheap_cells import cheap_grid, cheap_model, environment, matrix_command
from processes import alive, children, command_line, descendants

from harness.records.record_files import read_record

COMMANDS = {"local": 2, "ray": 1}
LONGEST_QUIET = 1500.0
"""Seconds without a new record after which a round counts as stuck."""
VICTIMS = {"local": {"job": 0.76, "command": 0.08, "server": 0.08, "power": 0.08},
           "ray": {"worker": 0.5, "command": 0.25, "power": 0.25}}  # fmt: skip
"""What is killed, and how often, by executor; a worker is Ray's, with the job that it has."""
PAUSES = {"local": (0.05, 1.5), "ray": (2.0, 25.0)}
"""Seconds between two kills; a cluster takes some ten to start."""
CUTS = 4
"""Files that a power cut cuts."""


@dataclass
class Chaos:
    """What has been done, and what was seen."""

    folder: Path
    model: Path
    cells: int
    wanted: int
    rng: random.Random
    executor: str = "local"
    kills: Counter[str] = field(default_factory=Counter)
    cuts: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    broken: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Rounds until there were enough kills."""
        straight = self._straight()
        while sum(self.kills.values()) < self.wanted and not self.broken:
            self.rounds += 1
            self._round(straight)
            print(f"round {self.rounds}: {dict(self.kills)} killed, {dict(self.cuts)} cut, {len(self.broken)} promises "
                  "broken", file=sys.stderr, flush=True)  # fmt: skip

    def _command(self, place: Path, *words: str) -> list[str]:
        attacks = [{"number": number, "sleep": 0.2} for number in range(self.cells)]
        grid = cheap_grid(self.model, attacks, seeds=[0, 1])
        return matrix_command(grid, place, "--retries", "1000000", "--executor", self.executor, *words)

    def _straight(self) -> dict[str, bytes]:
        """Items of every cell, of a run that nobody disturbs."""
        place = self.folder / "straight"
        subprocess.run(self._command(place, "--workers", "2"), check=True, env=environment(), **_SILENT)
        return {path.parent.name: path.read_bytes() for path in place.glob("out/cells/*/items.parquet")}

    def _round(self, straight: dict[str, bytes]) -> None:
        place = self.folder / f"round{self.rounds}"
        command = self._command(place, "--workers", "2")
        running = [self._start(command) for _ in range(COMMANDS[self.executor])]
        seen: dict[str, bytes] = {}
        moved = time.monotonic()
        while any(process.poll() is None for process in running) and not self.broken:
            time.sleep(self.rng.uniform(*PAUSES[self.executor]))
            if sum(self.kills.values()) < self.wanted:
                running = self._kill_something(running, command, place, seen)
            before = len(seen)
            self._look(place, straight, seen)
            moved = time.monotonic() if len(seen) != before else moved
            if time.monotonic() - moved > LONGEST_QUIET:
                self.broken.append(f"round {self.rounds} is stuck with {len(seen)} of {len(straight)} cells")
        for process in running:
            if process.poll() is None:
                process.kill()
            if process.wait() != 0:
                self.broken.append(f"a command of round {self.rounds} ended with status {process.returncode}")
        self._look(place, straight, seen)
        if len(seen) != len(straight):
            self.broken.append(f"round {self.rounds} ended with {len(seen)} of {len(straight)} cells")

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, env=environment(), **_SILENT)

    def _kill_something(self, running: list[subprocess.Popen[bytes]], command: list[str], place: Path,
                        seen: dict[str, bytes]) -> list[subprocess.Popen[bytes]]:  # fmt: skip
        """Kill something; returns the commands that run afterwards."""
        victims = VICTIMS[self.executor]
        (victim,) = self.rng.choices(list(victims), list(victims.values()))
        process = self.rng.choice(running)
        if process.poll() is not None:
            return running
        if victim == "power":
            for one in running:
                self._end(one)
            self.kills[victim] += 1
            for _ in range(CUTS):
                self._cut(place, seen)
            return [self._start(command) for _ in running]
        if victim == "command":
            self._end(process)
            self.kills[victim] += 1
            return [self._start(command) if one is process else one for one in running]
        family = descendants(process.pid)
        servers = [pid for pid in family if b"forkserver import main" in command_line(pid)]
        jobs = [pid for pid in family if any(pid in children(server) for server in servers)]
        workers = [pid for pid in family if (words := command_line(pid)).startswith(b"ray::") and b"Agent" not in words]
        targets = {"server": servers, "job": jobs, "worker": workers}[victim]
        if targets:
            self._kill(self.rng.choice(targets))
            self.kills[victim] += 1
        return running

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Kill a command, and see that what it started ends by itself."""
        family = descendants(process.pid)
        self._kill(process.pid)
        process.wait()
        deadline = time.monotonic() + 600
        while left := [pid for pid in family if alive(pid)]:
            if time.monotonic() > deadline:
                self.broken.append(f"processes outlive their command: {left}")
                return
            time.sleep(0.05)

    @staticmethod
    def _kill(pid: int) -> None:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def _cut(self, place: Path, seen: dict[str, bytes]) -> None:
        """Cut one file of results or cache short, as a power cut may leave it."""
        kind = self.rng.choice(["out", "cache"])
        files = [path for path in sorted((place / kind).rglob("*")) if path.is_file() and path.suffix != ".lock"
                 and path.stat().st_size and path.parent.name != "claims"]  # fmt: skip
        if not files:
            return
        path = self.rng.choice(files)
        os.truncate(path, self.rng.randrange(path.stat().st_size))
        self.cuts[kind] += 1
        seen.pop(path.parent.name, None)

    def _look(self, place: Path, straight: dict[str, bytes], seen: dict[str, bytes]) -> None:
        """Every complete record is right, and stays as it is."""
        for folder in sorted(place.glob("out/cells/*")):
            try:
                content = (folder / "record.json").read_bytes()
                if seen.get(folder.name) == content:
                    continue
                record = read_record(folder)
                items = (folder / "items.parquet").read_bytes()
            except OSError:
                record = None
            if folder.name in seen and record is None:
                self.broken.append(f"cell {folder.name} was complete and is not any more")
            if record is None or record.status == "interrupted":
                continue
            if record.status != "complete":
                self.broken.append(f"cell {folder.name} is {record.status}: {record.status_reason}")
            elif items != straight[folder.name]:
                self.broken.append(f"cell {folder.name} is complete with other scores than the undisturbed run")
            elif folder.name in seen:
                self.broken.append(f"cell {folder.name} was complete and was made again")
            else:
                seen[folder.name] = content


_SILENT = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def main() -> int:
    """Run, report, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--cells", type=int, default=24, help="attacks; each with two seeds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--executor", choices=sorted(VICTIMS), default="local")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    began = time.monotonic()
    with TemporaryDirectory(prefix="chaos-") as name:
        folder = Path(name)
        chaos = Chaos(folder, cheap_model(folder / "model"), args.cells, args.kills, random.Random(args.seed),
                      args.executor)  # fmt: skip
        chaos.run()
    figures = {
        "kills": dict(sorted(chaos.kills.items())), "cuts": dict(sorted(chaos.cuts.items())), "rounds": chaos.rounds,
        "cells_a_round": 2 * args.cells, "commands": COMMANDS[args.executor], "seed": args.seed, "broken": chaos.broken,
        "seconds": round(time.monotonic() - began),
    }  # fmt: skip
    text = json.dumps(figures, indent=1)
    print(text)
    if args.output:
        args.output.write_text(text + "\n")
    return int(bool(chaos.broken))


if __name__ == "__main__":
    sys.exit(main())
