"""What a short search finds, with and without its opening along the learning rate (`harness/search/rates.py`).

    python benchmarks/search_openings.py [--attacks 24] [--trials 8 12 20] [-o docs/data/search_openings.json]

The attacks are made up: a gain that rises over half a decade or a whole one to its best rate and falls off steeply
above, which batch, schedule, steps and optimizer change a little, and the optimizer's own best rate with it. `near`:
the best rate of AdamW lies within a factor of 5 of the one given; `far`: anywhere from 1e-5 to 30 times it, as behind a
lock that inflates gradients. A figure is the mean of the best gain found; 1 is AdamW as given at its best rate. No
model is trained; the same search without the opening calls the rate by another name.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from harness.budget import Budget
from harness.search.curve import curve
from harness.search.rates import RATE
from harness.search.run import run_trials
from harness.search.space import training_space
from harness.search.spec import SearchSpec
from harness.search.study import Study
from harness.train_settings import TrainSettings

GIVEN = TrainSettings(learning_rate=2e-3)
RANGES = {"near": (-0.7, 0.7), "far": (-5.0, 1.5)}
"""Decades between the rate given and the best one."""
OPTIMIZERS = {"adamw_torch": (0.0, 1.0), "muon": (1.0, 1.05), "adafactor": (0.3, 0.95), "sgd": (2.0, 0.8)}
"""Decades between their best rate and AdamW's, and their gain there."""
STEPS, BATCHES = {50: 0.85, 100: 1.0}, {4: 0.95, 8: 1.0, 16: 1.04}
SCHEDULES = {"linear": 1.0, "cosine": 1.0, "constant_with_warmup": 0.93}
WIDTHS = (0.5, 1.0)
"""Decades below its best rate at which an attack still gains 0.6 of what it can."""
OTHER_NAME = "rate"


def gain(params: dict[str, Any], shift: float, width: float) -> float:
    """What a made-up attack gains."""
    moved, factor = OPTIMIZERS[params["optim"]]
    off = math.log10(params[RATE] / GIVEN.learning_rate) - shift - moved
    shape = math.exp(-((off / (width if off < 0 else 0.35 * width)) ** 2) / 2) - 0.5 * (off > 1)
    shape *= factor * STEPS[params["max_steps"]] * BATCHES[params["per_device_train_batch_size"]]
    return shape * SCHEDULES[params["lr_scheduler_type"]] - 0.3 * max(0.0, params["warmup_ratio"] - 0.15)


def found(trials: int, shift: float, width: float, seed: int, *, opening: bool, sampler: str = "tpe") -> float:
    """The best gain of one search."""
    name = RATE if opening else OTHER_NAME
    space = {name if key == RATE else key: each for key, each in training_space(GIVEN).items()}
    given = {name if key == RATE else key: value for key, value in GIVEN.model_dump().items()}
    spec = SearchSpec.model_validate({"trials": trials, "space": space, "sampler": sampler})

    def attempt(params: dict[str, Any], meter: object, report: object) -> float:
        return gain({**params, RATE: params[name]}, shift, width)

    with tempfile.TemporaryDirectory() as folder:
        done = run_trials(Study(Path(folder), spec, seed, given), trials, Budget(), attempt)
    return curve(done, {}).trials[-1].best or 0.0


def measure(attacks: int, trials: int) -> dict[str, dict[str, float]]:
    """Mean best gain by how the search goes and where the best rate lies."""
    ways: dict[str, dict[str, Any]] = {"opening, then TPE": {"opening": True}, "TPE": {"opening": False},
                                       "random": {"opening": True, "sampler": "random"}}  # fmt: skip
    rows: dict[str, dict[str, float]] = {way: {} for way in ways}
    for where, (low, high) in RANGES.items():
        shifts = np.random.default_rng(0).uniform(low, high, attacks)
        for way, how in ways.items():
            best = [found(trials, float(shift), width, seed, **how) for width in WIDTHS
                    for seed, shift in enumerate(shifts)]  # fmt: skip
            rows[way][where] = float(np.mean(best))
            print(f"{trials} trials, {way}, {where}: {rows[way][where]:.3f}", file=sys.stderr)
    return rows


def main() -> None:
    """Measure, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attacks", type=int, default=24, help="made-up attacks a range and width")
    parser.add_argument("--trials", type=int, nargs="+", default=[8, 12, 20], help="lengths of searches")
    parser.add_argument("-o", type=Path, default=Path("docs/data/search_openings.json"), help="where the figures go")
    args = parser.parse_args()
    os.fsync = lambda handle: None  # the journals are thrown away
    figures = {str(trials): measure(args.attacks, trials) for trials in args.trials}
    args.o.write_text(json.dumps({"attacks": args.attacks, "gain": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
