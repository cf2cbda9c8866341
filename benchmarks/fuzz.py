"""Fuzz the readers of strangers' files: `python benchmarks/fuzz.py TARGET --inputs 250000`

With atheris (coverage-guided; the extra `fuzz`, not in `all`: it has wheels for some versions of Python only),
else with `--engine random`, which needs nothing. An input that fails is printed, saved under `tests/crashes`, and from
then on a test. The counts of a run are added to `docs/data/fuzz.json`, in place of those of the same target, engine and
seed: equal seeds draw equal inputs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import random
import sys
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]
CRASHES, DATA = ROOT / "tests" / "crashes", ROOT / "docs" / "data" / "fuzz.json"


class Counted:
    """A target that counts its inputs and keeps those that fail."""

    def __init__(self, name: str, engine: str, last: int, seed: int, most: int = 20) -> None:
        from fuzz_targets import TARGETS

        self.name, self.engine, self.target, self.seed = name, engine, TARGETS[name], seed
        self.last, self.most = last, most
        self.inputs, self.seen, self.started = 0, set[str](), time.monotonic()

    def __call__(self, data: bytes) -> None:
        self.inputs += 1
        if self.inputs % 1000 == 0 or self.inputs == self.last:  # libFuzzer ends the process without exit handlers
            save(self.figures())
        try:
            self.target(data)
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            where = [frame for frame in frames if frame.filename.startswith(str(ROOT))][-1]
            kind = f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}"
            if kind not in self.seen and len(self.seen) < self.most:
                self.seen.add(kind)
                CRASHES.mkdir(exist_ok=True)
                path = CRASHES / f"{self.name}-{hashlib.sha256(data).hexdigest()[:12]}"
                path.write_bytes(data)
                print(f"FAILED {kind}: {str(error)[:200]!r}; kept as {path.name}", flush=True)

    def figures(self) -> dict[str, object]:
        """What is kept of the run."""
        return {"target": self.name, "engine": self.engine, "seed": self.seed, "inputs": self.inputs,
                "failures": sorted(self.seen), "seconds": round(time.monotonic() - self.started),
                "python": platform.python_version()}  # fmt: skip


def by_chance(target: Counted, inputs: int, seed: int) -> None:
    """Random bytes, of random lengths, half of them changed from an input before."""
    draw, pool = random.Random(seed), [b""]
    for _ in range(inputs):
        data = bytearray(draw.choice(pool) if draw.random() < 0.5 else draw.randbytes(draw.randrange(1, 100)))
        for _ in range(draw.randrange(4)):
            place = draw.randrange(len(data) + 1)
            data[place : place + draw.randrange(3)] = draw.randbytes(draw.randrange(3))
        target(bytes(data))
        pool = [*pool[-199:], bytes(data)]


def by_coverage(target: Counted, inputs: int, seed: int, corpus: Path) -> None:
    """atheris: what reaches new code is kept and changed further."""
    import atheris

    corpus.mkdir(parents=True, exist_ok=True)
    arguments = [sys.argv[0], f"-runs={inputs}", f"-seed={seed}", "-max_len=400", "-verbosity=0",
                 "-timeout=1200", "-rss_limit_mb=4096", f"-artifact_prefix={corpus.parent}/", str(corpus)]  # fmt: skip
    atheris.Setup(arguments, target, internal_libfuzzer=True)
    atheris.Fuzz()  # does not return


def save(figures: dict[str, object]) -> None:
    """Add a run to the figures, in place of an older one of the same inputs."""

    def same(row: dict[str, object]) -> tuple[object, ...]:
        return row["target"], row["engine"], row["seed"]

    rows = json.loads(DATA.read_text())["runs"] if DATA.exists() else []
    rows = sorted([*(row for row in rows if same(row) != same(figures)), figures], key=same)
    DATA.write_text(json.dumps({"runs": rows}, indent=1) + "\n")


def main() -> None:
    """Run one target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=("gate", "spec", "record", "items", "leaderboard"))
    parser.add_argument("--engine", choices=("atheris", "random"), default="atheris")
    parser.add_argument("--inputs", type=int, default=250_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path, default=Path("fuzz-corpus"), help="atheris' inputs, kept between runs")
    options = parser.parse_args()
    if options.engine == "random":
        by_chance(Counted(options.target, "random", options.inputs, options.seed), options.inputs, options.seed)
        return
    import atheris

    with atheris.instrument_imports(include=["harness", "leaderboards", "fuzz_targets"]):
        import fuzz_targets  # noqa: F401

        import harness.models.gate
        import harness.records.item_files
        import harness.records.record
        import harness.spec  # noqa: F401
        import leaderboards.verify  # noqa: F401
    target = Counted(options.target, "atheris", options.inputs, options.seed)
    by_coverage(target, options.inputs, options.seed, options.corpus / options.target)


if __name__ == "__main__":
    main()
