"""The draws behind an interval: resampled items, and how far seeds move a mean. `statistics` says why it is done so."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from harness.records.items import Scores

_CHUNK = 4_000_000
"""Item draws held in memory at once."""

Vector = npt.NDArray[np.float64]


def common_weights(models: Mapping[str, Scores]) -> Vector:
    """The weights of the items, which all models share.

    Raises:
        ValueError: no model, or models that were not scored on the same items with the same weights.
    """
    if not models:
        raise ValueError("no model to draw for")
    (first, one), *others = models.items()
    for name, model in others:
        if model.items != one.items:
            odd = sorted(set(model.items) ^ set(one.items))[:3]
            raise ValueError(f"{first} and {name} were not scored on the same items: {', '.join(odd)} ...")
        if (model.weights != one.weights).any():
            raise ValueError(f"{first} and {name} weigh the same items differently")
    return one.weights


def item_draws(models: Mapping[str, Scores], resamples: int, seed: int) -> dict[str, Vector]:
    """Weighted means over resampled items of each model, (resamples,): one matrix product of scores and counts.

    Args:
        models: by name; the same items with the same weights each. The more at once, the less a model takes.
        resamples: number of draws.
        seed: of the draws; equal seeds give equal draws.
    """
    weights = common_weights(models)
    items = len(weights)
    values = np.column_stack([model.values.mean(1) for model in models.values()])
    weighted = np.column_stack([values * weights[:, None], weights]).T.copy()
    step = max(1, _CHUNK // items)
    if step >= resamples:
        sums = weighted @ _all_counts(items, resamples, seed)
    else:
        rng, sums = np.random.default_rng([seed, 0]), np.empty((len(weighted), resamples))
        for start in range(0, resamples, step):
            rows = min(step, resamples - start)
            sums[:, start : start + rows] = weighted @ _counts(items, rows, rng).T
    return dict(zip(models, sums[:-1] / sums[-1], strict=True))


@lru_cache(maxsize=2)
def _all_counts(items: int, resamples: int, seed: int) -> Vector:
    """(items, resamples). Kept, for the draws of many models with as many items are the same: at most 32 MB each."""
    counts = np.ascontiguousarray(_counts(items, resamples, np.random.default_rng([seed, 0])).T)
    counts.flags.writeable = False
    return counts


def _counts(items: int, rows: int, rng: np.random.Generator) -> Vector:
    """How often each item was drawn, (rows, items)."""
    chosen = rng.integers(0, items, (rows, items)) + items * np.arange(rows)[:, None]
    return np.bincount(chosen.ravel(), minlength=rows * items).reshape(rows, items).astype(np.float64)


@lru_cache(maxsize=64)
def small_sample(effective: float) -> float:
    """How much wider than the plain bootstrap of `effective` items an honest interval is."""
    if effective < 2:  # one item carries nearly all the weight; callers refuse n = 1
        effective = 2.0
    from scipy.special import ndtri, stdtrit  # scipy.stats gives the same, and takes half a second to import

    ratio = stdtrit(effective - 1, 0.975) / ndtri(0.975)
    return float(ratio * np.sqrt(effective / (effective - 1)))


def seed_spread(models: Mapping[str, Scores], weights: Vector) -> dict[str, tuple[float, float]]:
    """Standard error over seeds and degrees of freedom of each model with two seeds or more.

    The floor is known from many items, so that only what lies beyond it is uncertain (Satterthwaite's argument). Half
    as many again is the most this may add: two seeds agree by luck too often to be believed further.
    """
    share = weights / weights.sum()
    own, floor, freedom = {}, {}, {}
    for name, model in models.items():
        seeds = model.values.shape[1]
        if seeds < 2:
            continue
        means = share @ model.values
        own[name] = float(means.var(ddof=1))
        noise = model.values - model.values.mean(1, keepdims=True) - (means - means.mean())
        floor[name] = float(((share[:, None] * noise) ** 2).sum() / (seeds - 1))
        freedom[name] = seeds - 1
    total = sum(freedom.values())
    if not total:
        return {}
    pooled = sum(freedom[name] * own[name] for name in own) / total
    spread = {}
    for name in own:
        variance = max(own[name], pooled, floor[name])
        base = freedom[name] + (1 if freedom[name] < 3 else 0)
        beyond = variance - floor[name]
        known = base * (variance / beyond) ** 2 if beyond > 0 else math.inf
        spread[name] = (math.sqrt(variance / (freedom[name] + 1)), min(known, 1.5 * base))
    return spread


def is_binary(models: Iterable[Scores]) -> bool:
    """Whether every score is 0 or 1."""
    return all(bool(np.isin(model.values, (0.0, 1.0)).all()) for model in models)
