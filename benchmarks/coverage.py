"""How often do the 95 % intervals of recovery hold the truth? Simulated cells with a known recovery.

    python benchmarks/coverage.py [--repeats 500] [-o docs/data/coverage.json]

Beside ours stands the plain hierarchical bootstrap (seeds resampled, then items), which is what most reports use.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.numbers.statistics import bootstrap
from harness.records.items import Scores

GAIN = 0.3
"""Reference gain of the simulated cells, in score units."""


@dataclass(frozen=True)
class World:
    """What is true in a simulation."""

    seeds: int
    recovery: float
    attacked_noise: float
    """Standard deviation of the attacked model's score over seeds, as a share of the reference gain."""
    reference_noise: float
    items: int = 60
    binary: bool = False


def draw(world: World, rng: np.random.Generator) -> dict[str, Scores]:
    """One cell: items of unequal length and difficulty, gains that differ by item, noise by seed, and by both."""
    n, seeds = world.items, world.seeds
    weights = np.ones(n) if world.binary else rng.uniform(500, 1500, n)
    base = rng.normal(0.25 if world.binary else -2, 0.05 if world.binary else 0.4, n)
    gain = rng.normal(GAIN, 0.1, n)
    sides = {"base": (0.0, 0.0, 1), "attacked": (world.recovery, world.attacked_noise, seeds),
             "reference": (1.0, world.reference_noise, seeds)}  # fmt: skip
    models = {}
    for side, (share, noise, count) in sides.items():
        mean = (base + share * gain)[:, None] + rng.normal(0, noise * GAIN, count)
        if world.binary:
            values = (rng.uniform(size=(n, 1)) < np.clip(mean, 0, 1)).astype(float)
        else:
            values = mean + rng.normal(0, 0.05, (n, count)) * (side != "base")
        names = tuple(f"d{index}" for index in range(n))
        models[side] = Scores(names, (None,) if side == "base" else tuple(range(count)), values, weights)
    return models


def coverage(world: World, repeats: int, seed: int = 0, resamples: int = 1000) -> dict[str, Any]:
    """Share of intervals that hold the true recovery, ours and plain, and their median widths."""
    rng = np.random.default_rng(seed)
    held, plain_held, widths, plain_widths, undefined = [], [], [], [], 0
    for repeat in range(repeats):
        models = draw(world, rng)
        draws = bootstrap(models, resamples=resamples, seed=repeat)
        interval = draws.ratio(("attacked", "base"), ("reference", "base"))
        if interval.low is None or interval.high is None:
            undefined += 1
            continue
        held.append(interval.low <= world.recovery <= interval.high)
        widths.append(interval.high - interval.low)
        low, high = plain(models, 300, np.random.default_rng([seed, repeat]))
        plain_held.append(low <= world.recovery <= high)
        plain_widths.append(high - low)
    return {**asdict(world), "repeats": repeats, "undefined": undefined, "coverage": float(np.mean(held)),
            "median_width": float(np.median(widths)), "plain_coverage": float(np.mean(plain_held)),
            "plain_median_width": float(np.median(plain_widths))}  # fmt: skip


def plain(models: dict[str, Scores], resamples: int, rng: np.random.Generator) -> tuple[float, float]:
    """Percentiles of recovery when seeds and items are both resampled with replacement."""
    weights, n = models["base"].weights, len(models["base"].items)
    chosen = rng.integers(0, n, (resamples, n))
    means = {}
    for side, model in models.items():
        seeds = rng.integers(0, model.values.shape[1], (resamples, model.values.shape[1]))
        by_seed = np.einsum("rn,rns->rs", weights[chosen], model.values[chosen]) / weights[chosen].sum(1)[:, None]
        means[side] = np.take_along_axis(by_seed, seeds, axis=1).mean(1)
    recovered = (means["attacked"] - means["base"]) / (means["reference"] - means["base"])
    low, high = np.quantile(recovered, [0.025, 0.975])
    return float(low), float(high)


def worlds() -> list[World]:
    """Two, three and five seeds; locks that hold, leak and fail; quiet to noisy and unequally noisy training."""
    noises = ((0.01, 0.01), (0.07, 0.07), (0.14, 0.07), (0.07, 0.14), (0.2, 0.07))
    grid = [World(seeds, recovery, *noise) for seeds in (2, 3, 5) for noise in noises for recovery in (0.0, 0.5, 1.0)]
    answers = [World(seeds, recovery, 0.07, 0.07, 200, True) for seeds in (2, 3, 5) for recovery in (0.0, 0.5, 1.0)]
    return grid + answers


def main() -> None:
    """Simulate all worlds, print and write them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=500)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/data/coverage.json"))
    args = parser.parse_args()
    rows = []
    for world in worlds():
        rows.append(coverage(world, args.repeats))
        print(json.dumps(rows[-1]), flush=True)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
