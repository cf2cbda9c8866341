"""Intervals that hold with few items and very few seeds (design.md §4).

Items are bootstrapped (resampled with replacement, the same draw for all models: paired). Seeds are not: resampling
two or three of them gives intervals far too narrow (0.65-0.8 coverage where 0.95 is claimed: `benchmarks/coverage.py`).
Each seeded model's mean is instead moved by a Student t draw times its standard error over seeds, independently of the
other models. Three decisions keep coverage near 0.95 without Cauchy-wide intervals:

- a model's seed variance is the larger of its own, of the pooled one of the seeded models beside it, and of what its
  item-by-seed noise alone would give (two seeds often agree by luck);
- with fewer than three degrees of freedom it borrows one, from the models beside it or else from its item-by-seed
  noise, never more: they need not be equally noisy; it has up to half as many again where item-by-seed noise, known
  from many items, is most of the variance;
- the item part is widened by sqrt(m / (m - 1)) and t over z, with Kish's effective number of items for m.

A ratio's interval is the set of r for which numerator - r * denominator is not distinguishable from 0 (Fieller's
argument on the draws): bounded exactly when the denominator's interval excludes 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.numbers.resampling import Vector, common_weights, is_binary, item_draws, seed_spread, small_sample
from harness.records.items import Scores
from harness.records.sections import Interval

LEVEL = 0.95
RESAMPLES = 10_000
_FEW = 100
"""So many draws are looked at faster than sorted out."""
_SAMPLE = 500
"""So many of them show where the others lie."""
_FLAT = "no spread over items or seeds: no interval"


def wilson(successes: float, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval of a proportion; never of zero width, also at 0, at n and at n = 1.

    Args:
        successes: from 0 to `n`; may be fractional (weights).
        n: number of trials, at least 1.
        level: coverage.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials")
    from scipy.special import ndtri

    z, p = float(ndtri(0.5 + level / 2)), successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, min(p, float(centre - half))), min(1.0, max(p, float(centre + half)))  # rounding must not lose p


@dataclass(frozen=True)
class Draws:
    """What each model's weighted mean could have been."""

    models: Mapping[str, Scores]
    """Scores by name; all on the same items."""
    point: Mapping[str, float]
    """The weighted mean itself, over items and seeds."""
    draws: Mapping[str, Vector]
    """(resamples,) each."""

    @cached_property
    def n_items(self) -> int:
        """Number of items."""
        return len(next(iter(self.models.values())).items)

    def seeds(self, *names: str) -> int:
        """Smallest number of seeds among the seeded ones of these models; 0 if none is seeded."""
        counts = [len(self.models[name].seeds) for name in names if self.models[name].seeds != (None,)]
        return min(counts, default=0)

    def mean(self, name: str, level: float = LEVEL) -> Interval:
        """The score of one model; Wilson's interval for a proportion without seeds, or one of 0 or 1 throughout."""
        model = self.models[name]
        if is_binary([model]) and np.ptp(model.weights) == 0 and (len(model.seeds) == 1 or np.ptp(model.values) == 0):
            low, high = wilson(round(self.point[name] * self.n_items), self.n_items, level)
            return self._interval(self.point[name], low, high, name)
        interval = self._percentiles(self.point[name], self.draws[name], level, name)
        if not is_binary([model]) or interval.low is None or interval.high is None:
            return interval
        return interval.model_copy(update={"low": max(0.0, interval.low), "high": min(1.0, interval.high)})

    def difference(self, name: str, other: str, level: float = LEVEL) -> Interval:
        """`name - other`, paired on items."""
        draws = self.draws[name] - self.draws[other]
        return self._percentiles(self.point[name] - self.point[other], draws, level, name, other)

    def ratio(self, top: tuple[str, str], bottom: tuple[str, str], level: float = LEVEL) -> Interval:
        """`(top[0] - top[1]) / (bottom[0] - bottom[1])`; the denominator must be clearly above 0.

        Returns:
            An interval; null with a reason where the denominator's interval includes 0, lies below it, or is unknown.
        """
        names = (*top, *bottom)
        numerator = self.draws[top[0]] - self.draws[top[1]]
        denominator = self.draws[bottom[0]] - self.draws[bottom[1]]
        if _flat(denominator) or denominator.min() <= 0 or self._single(*bottom):  # otherwise it is above 0 throughout
            below = self.difference(*bottom, level)
            if below.low is None or below.high is None:
                return self._null(f"the gain of {bottom[0]} over {bottom[1]} has no interval: {below.reason}", *names)
            if below.low <= 0:
                what = "includes 0" if below.high >= 0 else "lies below 0"
                gain = f"the interval of the gain of {bottom[0]} over {bottom[1]} ({below.low:.4g} to {below.high:.4g})"
                return self._null(f"{gain} {what}", *names)
        value = (self.point[top[0]] - self.point[top[1]]) / (self.point[bottom[0]] - self.point[bottom[1]])
        if _flat(numerator):
            return self._interval(value, None, None, *names, reason=_FLAT)
        low, high = _fieller(numerator, denominator, value, level)
        return self._interval(value, low, high, *names)

    def _percentiles(self, value: float, draws: Vector, level: float, *names: str) -> Interval:
        if self._single(*names):
            return self._interval(value, None, None, *names, reason="one item: no interval")
        if _flat(draws):
            return self._interval(value, None, None, *names, reason=_FLAT)
        low, high = np.quantile(draws, [0.5 - level / 2, 0.5 + level / 2])
        return self._interval(value, float(low), float(high), *names)

    def _single(self, *names: str) -> bool:
        """Whether there is one item alone, whose score says nothing of its spread."""
        return self.n_items == 1 and not is_binary(self.models[name] for name in names)

    def _interval(
        self, value: float, low: float | None, high: float | None, *names: str, reason: str | None = None
    ) -> Interval:
        seeds = self.seeds(*names)
        if seeds == 1 and reason is None:
            reason = "one attack seed: the interval is over items only"
        return Interval(value=value, low=low, high=high, n_items=self.n_items, n_seeds=seeds, reason=reason)

    def _null(self, reason: str, *names: str) -> Interval:
        return Interval(n_items=self.n_items, n_seeds=self.seeds(*names), reason=reason)


def bootstrap(
    models: Mapping[str, Scores], *, resamples: int = RESAMPLES, seed: int = 0,
    means: Mapping[str, Vector] | None = None,
) -> Draws:  # fmt: skip
    """Draw the weighted means of several models, paired on items, with independent seeds.

    Args:
        models: by name; the same items with the same weights each, seeds `(None,)` or real ones.
        resamples: number of draws.
        seed: of the draws; equal seeds give equal draws, bit for bit.
        means: of each model over so many draws of items with this seed, from `harness.numbers.resampling.item_draws`
            of these models or of more; None draws.

    Raises:
        ValueError: no model, or models that were not scored on the same items.
    """
    weights = common_weights(models)
    values = np.column_stack([model.values.mean(1) for model in models.values()])
    total = weights.sum()
    point = weights @ values / total
    drawn = item_draws(models, resamples, seed) if means is None else means
    effective = total**2 / (weights**2).sum()
    wider = small_sample(effective)
    rng = np.random.default_rng([seed, 1])
    binary = is_binary(models.values())
    spread = seed_spread(models, weights)
    draws = {}
    for column, (name, model) in enumerate(models.items()):
        draw = drawn[name] - point[column]  # in place from here on: ten thousand numbers are slow to come by
        draw *= wider
        draw += point[column]
        if binary and np.ptp(model.values) == 0:  # 0 or 1 throughout: Jeffreys' posterior, not certainty
            k, n = point[column] * len(weights), len(weights)
            draw = rng.beta(k + 0.5, n - k + 0.5, resamples)
        if name in spread:
            error, freedom = spread[name]
            moved = rng.standard_t(freedom, resamples)
            moved *= error
            draw += moved
        draws[name] = draw
    return Draws(models=models, point=dict(zip(models, map(float, point), strict=True)), draws=draws)


def _flat(draws: Vector) -> bool:
    """No spread to estimate an interval from; that is not certainty."""
    low, high = float(draws.min()), float(draws.max())
    return high - low <= 1e-12 * max(1.0, -low, high)


def _fieller(top: Vector, bottom: Vector, value: float, level: float) -> tuple[float | None, float | None]:
    """The ends of the ratio's interval: where `top - r * bottom > 0` holds for too few or too many draws.

    With every denominator above 0 that is `r < top / bottom`, and the ends are two of the quotients.
    """
    tail, number = 0.5 - level / 2, len(top)
    if bottom.min() <= 0:
        return _crossing(top, bottom, value, tail, -1), _crossing(top, bottom, value, tail, 1)
    few = int(tail * number * (1 + 1e-12))  # so many draws may lie beyond an end
    low, high = _ends(top / bottom, few)
    return min(low, value), max(high, value)


def _ends(draws: Vector, few: int) -> tuple[float, float]:
    """The numbers that so many of the draws lie below, and above. A sample tells which draws can be meant."""
    sample = np.sort(draws[:: max(1, len(draws) // _SAMPLE)])
    place = 2 * few * len(sample) // len(draws)
    below, above = draws[draws < sample[place]], draws[draws > sample[-1 - place]]
    if min(len(below), len(above)) <= few:
        below = above = draws
    return float(np.partition(below, few)[few]), float(np.partition(above, len(above) - few - 1)[len(above) - few - 1])


def _crossing(top: Vector, bottom: Vector, value: float, tail: float, side: int) -> float | None:
    """One end of `_fieller`, on this side of `value`.

    Rounding keeps order: as r grows, each draw changes sides once at most. What holds of it at two r holds between
    them, so a bisection looks only at draws of which its ends differ.
    """
    number = len(top)

    def outside(above: int) -> bool:
        return above / number <= tail if side > 0 else above / number >= 1 - tail

    near, at_near = value, top - value * bottom > 0
    step = max(abs(value), 1e-3)
    for _ in range(60):
        far = value + side * step
        at_far = top - far * bottom > 0
        if outside(int(np.count_nonzero(at_far))):
            break
        step *= 2
    else:
        return None
    above = 0
    for _ in range(50):
        if len(top) > _FEW:
            above += int(np.count_nonzero(at_near & at_far))
            differ = at_near != at_far
            top, bottom, at_near, at_far = top[differ], bottom[differ], at_near[differ], at_far[differ]
        middle = (near + far) / 2
        here = top - middle * bottom > 0
        if outside(above + int(np.count_nonzero(here))):
            far, at_far = middle, here
        else:
            near, at_near = middle, here
    return float(far)
