from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.numbers.statistics import _fieller, bootstrap, wilson
from harness.records.items import Scores

TOP, BOTTOM = ("attacked", "base"), ("reference", "base")


def model(values: Any, weights: Any = None, seeded: bool = True) -> Scores:
    array = np.asarray(values, dtype=float)
    array = array[:, None] if array.ndim == 1 else array
    names = tuple(f"i{k:03}" for k in range(len(array)))
    seeds = tuple(range(array.shape[1])) if seeded else (None,)
    return Scores(names, seeds, array, np.ones(len(array)) if weights is None else np.asarray(weights, dtype=float))


def cell(recovery: float = 0.5, n: int = 50, seeds: int = 3, noise: float = 0.02, rng: int = 0) -> dict[str, Scores]:
    draw = np.random.default_rng(rng)
    base, weights = draw.normal(-2, 0.5, n), draw.uniform(1, 3, n)

    def side(share: float) -> Scores:
        values = (base + 0.3 * share)[:, None] + draw.normal(0, noise, seeds) + draw.normal(0, 0.02, (n, seeds))
        return model(values, weights)

    return {"base": model(base, weights, seeded=False), "attacked": side(recovery), "reference": side(1.0)}


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_proportion_and_never_has_no_width(case: tuple[int, int]) -> None:
    k, n = case
    low, high = wilson(k, n)
    assert 0 <= low <= k / n <= high <= 1
    assert high - low > 1 / (n + 4)


def test_wilson_known_values() -> None:
    assert wilson(3, 3) == pytest.approx((0.4385, 1.0), abs=1e-4)
    assert wilson(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    with pytest.raises(ValueError, match="successes"):
        wilson(0, 0)


def plain_fieller(top: Any, bottom: Any, value: float, side: int) -> float | None:
    """The end of a ratio's interval by looking at every draw each time."""

    def outside(r: float) -> bool:
        above = float(np.mean(top - r * bottom > 0))
        return above <= 0.5 - 0.95 / 2 if side > 0 else above >= 1 - (0.5 - 0.95 / 2)

    reach = max(abs(value), 1e-3) * 2.0 ** np.arange(60)
    far = next((value + side * step for step in reach if outside(value + side * step)), None)
    near = value
    for _ in range(50 if far is not None else 0):
        middle = (near + far) / 2
        near, far = (near, middle) if outside(middle) else (middle, far)
    return far


@given(st.integers(0, 2**32), st.floats(-3, 3), st.sampled_from([1e-9, 0.1, 2.0]), st.sampled_from([None, 0, 1]),
       st.floats(0.3, 3), st.floats(-1, 1), st.booleans())  # fmt: skip
def test_ends_of_ratios_are_what_all_draws_say(
    rng: int, mean: float, spread: float, digits: int | None, bottom_mean: float, off: float, positive: bool
) -> None:
    """Ties, denominators of 0 and below it, and a value outside of its interval included."""
    draw = np.random.default_rng(rng)
    top, bottom = draw.normal(mean, spread, 800), draw.normal(bottom_mean, 0.7, 800)
    if digits is not None:
        top, bottom = np.round(top, digits), np.round(bottom, digits)
    bottom = np.abs(bottom) + 0.1 if positive else bottom
    value = mean / bottom_mean + off
    ends = tuple(plain_fieller(top, bottom, value, side) for side in (-1, 1))
    found = _fieller(top, bottom, value, 0.95)
    assert found == (pytest.approx(ends, rel=1e-9, abs=1e-9) if bottom.min() > 0 else ends)


def test_draws_are_deterministic_and_follow_the_seed() -> None:
    one, two, other = bootstrap(cell(), seed=1), bootstrap(cell(), seed=1), bootstrap(cell(), seed=2)
    assert all((one.draws[name] == two.draws[name]).all() for name in one.draws)
    assert (one.draws["base"] != other.draws["base"]).any()


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_intervals_hold_the_value_and_say_what_is_behind_them(seeds: int) -> None:
    draws = bootstrap(cell(seeds=seeds))
    for interval in (draws.mean("attacked"), draws.difference(*TOP), draws.ratio(TOP, BOTTOM)):
        assert interval.low is not None
        assert interval.low < interval.value < interval.high
        assert (interval.n_items, interval.n_seeds) == (50, seeds)
        assert (interval.reason is not None) == (seeds == 1)
    assert draws.mean("base").n_seeds == 0


def test_items_are_paired() -> None:
    """Items that differ by far more than the gain do not blur it; shuffled, they would."""
    draws = bootstrap(cell(noise=0.001))
    gain, score = draws.difference(*BOTTOM), draws.mean("reference")
    assert gain.high - gain.low < (score.high - score.low) / 5


def test_seeds_count_beyond_items() -> None:
    quiet, noisy = (bootstrap(cell(noise=noise)).difference(*BOTTOM) for noise in (0.001, 0.1))
    assert noisy.high - noisy.low > 3 * (quiet.high - quiet.low)


def test_two_seeds_that_agree_by_luck_are_not_believed() -> None:
    models = cell(seeds=2, noise=0.1)
    lucky = model(np.repeat(models["attacked"].values.mean(1, keepdims=True), 2, axis=1), models["base"].weights)
    draws = bootstrap({**models, "attacked": lucky})
    assert draws.draws["attacked"].std() > 0.5 * draws.draws["reference"].std()


def test_recovery_is_undefined_when_the_reference_gained_nothing() -> None:
    models = cell()
    base = models["base"]
    same = model(base.values + np.random.default_rng(1).normal(0, 0.05, (50, 3)), base.weights)
    found = bootstrap({**models, "reference": same}).ratio(TOP, BOTTOM)
    assert (found.value, found.low, found.high) == (None, None, None)
    assert found.reason is not None
    assert "includes 0" in found.reason
    worse = model(base.values - 1 + np.random.default_rng(1).normal(0, 0.05, (50, 3)), base.weights)
    reason = bootstrap({**models, "reference": worse}).ratio(TOP, BOTTOM).reason
    assert reason is not None
    assert "below 0" in reason


@pytest.mark.parametrize(("values", "inside"), [([1.0] * 20, 1.0), ([0.0] * 20, 0.0), ([1.0], 1.0)])
def test_perfect_scores_are_not_certain(values: list[float], inside: float) -> None:
    for seeded in (False, True):
        found = bootstrap({"x": model(values, seeded=seeded)}).mean("x")
        assert found.value == inside
        assert (found.low, found.high) == pytest.approx(wilson(round(sum(values)), len(values)))


def test_a_gain_between_perfect_scores_is_not_certain() -> None:
    draws = bootstrap({"base": model([0.0] * 20, seeded=False), "attacked": model([1.0] * 20)})
    gain = draws.difference("attacked", "base")
    assert gain.value == 1
    assert gain.low is not None
    assert 0.7 < gain.low < 0.97


def test_one_item_or_no_spread_gives_no_interval_and_says_so() -> None:
    one = bootstrap({"x": model([0.3], seeded=False)}).mean("x")
    flat = bootstrap({"x": model([0.3] * 9, seeded=False)}).mean("x")
    for found in (one, flat):
        assert (found.value, found.low, found.high) == (pytest.approx(0.3), None, None)
        assert found.reason


def test_models_scored_on_other_items_are_refused() -> None:
    with pytest.raises(ValueError, match="same items"):
        bootstrap({"a": model([1.0, 2.0]), "b": model([1.0, 2.0, 3.0])})
    with pytest.raises(ValueError, match="differently"):
        bootstrap({"a": model([1.0, 2.0]), "b": model([1.0, 2.0], [1, 2])})


def test_weights_count() -> None:
    draws = bootstrap({"x": model([0.0, 10.0, 0.0], [1, 8, 1], seeded=False)})
    assert draws.point["x"] == pytest.approx(8.0)


@given(shift=st.floats(-5, 5), scale=st.floats(0.1, 10))
def test_recovery_does_not_depend_on_the_unit(shift: float, scale: float) -> None:
    models = cell()
    moved = {k: Scores(m.items, m.seeds, m.values * scale + shift, m.weights) for k, m in models.items()}
    one, two = (bootstrap(which, resamples=500).ratio(TOP, BOTTOM) for which in (models, moved))
    assert (one.value, one.low, one.high) == pytest.approx((two.value, two.low, two.high), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("recovery", [0.0, 1.0])
def test_recovery_intervals_cover_the_truth(seeds: int, recovery: float) -> None:
    """Training noise of 7 % of the gain; the larger simulation is docs/data/coverage.json."""
    benchmark = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks" / "coverage.py"))
    world = benchmark["World"](seeds, recovery, 0.07, 0.07)
    found = benchmark["coverage"](world, repeats=300)
    assert 0.93 <= found["coverage"] <= 0.99
    assert found["plain_coverage"] < 0.93
