from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_factory import METRIC, make_items

from harness.numbers.scoring import cost_to_recover, costs_to_recover, task_numbers, utilities
from harness.records.items import Item, weighted_mean
from harness.records.sections import Point


def points(*scores: float, flops: float = 1.0) -> list[Point]:
    return [Point(step=k, tokens=10 * k, flops=flops * k, score=score) for k, score in enumerate(scores)]


def test_every_number_follows_from_the_items() -> None:
    items = make_items(recovery=0.5)
    found = task_numbers(items, METRIC, "-bits/byte")
    means = {side: weighted_mean(row for row in items if row.model == side and row.metric == METRIC)
             for side in ("base", "locked", "attacked", "reference")}  # fmt: skip
    for side, mean in means.items():
        assert getattr(found.score, side).value == pytest.approx(mean)
    assert found.gain.value == pytest.approx(means["attacked"] - means["locked"])
    assert found.reference_gain.value == pytest.approx(means["reference"] - means["base"])
    want = (means["attacked"] - means["base"]) / (means["reference"] - means["base"])
    assert found.recovery.value == pytest.approx(want)
    assert found.score.unit == "-bits/byte"


@pytest.mark.parametrize("truth", [0.0, 0.5, 1.0])
def test_recovery_of_a_known_effect_lies_in_its_interval(truth: float) -> None:
    recovery = task_numbers(make_items(recovery=truth), METRIC).recovery
    assert recovery.low is not None
    assert recovery.low < truth < recovery.high
    assert recovery.high - recovery.low < 0.6


def test_recovery_is_not_clipped() -> None:
    assert task_numbers(make_items(recovery=-0.7), METRIC).recovery.value < -0.5
    assert task_numbers(make_items(recovery=1.6), METRIC).recovery.value > 1.4


def test_what_was_not_scored_is_null_with_a_reason() -> None:
    found = task_numbers(make_items(attacked=False), METRIC)
    for interval in (found.score.attacked, found.gain, found.recovery):
        assert interval.value is None
        assert "attacked" in (interval.reason or "")
    assert found.reference_gain.value is not None
    assert task_numbers([], METRIC).recovery.reason


def test_models_scored_on_other_items_are_an_error() -> None:
    items = [row for row in make_items() if not (row.model == "locked" and row.item == "d3")]
    with pytest.raises(ValueError, match="same items"):
        task_numbers(items, METRIC)


def test_collapse_is_a_loss_above_chance_of_more_than_eps() -> None:
    fine = utilities(make_items(utility=0.96), {"pairs": 0.5})
    assert fine.locked is not None
    assert fine.locked.retention == pytest.approx(0.92)
    assert fine.collapsed is False
    broken = utilities(make_items(utility=0.96, attacked_utility=0.9), {"pairs": 0.5})
    assert broken.attacked is not None
    assert broken.attacked.retention == pytest.approx(0.8)
    assert broken.collapsed is True
    assert utilities(make_items(utility=0.96, attacked_utility=0.9), {"pairs": 0.5}, eps=0.25).collapsed is False


def test_a_task_at_chance_says_nothing_about_retention() -> None:
    items = [Item(side, "utility/pairs", None, str(i), float(i % 2)) for side in ("base", "locked") for i in range(40)]
    found = utilities(items, {"pairs": 0.5})
    assert found.locked is not None
    assert found.locked.retention is None
    assert found.locked.reason
    assert found.collapsed is None


def test_perplexity_is_exp_of_the_mean_loss_with_its_ends_in_order() -> None:
    found = utilities(make_items(), {})
    assert found.base is not None
    perplexity = found.base.perplexity
    assert perplexity.value == pytest.approx(2.718281828**2.1)
    assert perplexity.low < perplexity.value < perplexity.high


def test_a_perplexity_beyond_any_float_is_null_with_a_reason() -> None:
    """A ruined model's log-likelihoods may be thousands of nats; that must not cost the cell its record."""
    models = (("base", None, -2.0), ("locked", None, -3.0), ("attacked", 1, -5000.0))
    items = [Item(side, "utility/perplexity", seed, str(i), score - i, 10.0) for side, seed, score in models
             for i in range(4)]  # fmt: skip
    found = utilities(items, {}).attacked
    assert found is not None
    assert (found.perplexity.value, found.perplexity.high, found.perplexity.n_items) == (None, None, 4)
    assert found.perplexity.reason == "a perplexity above 1e+100"


def test_a_reference_that_spent_next_to_nothing_has_no_ratio() -> None:
    path = [Point(step=n, tokens=n, flops=5e-324 * n, score=float(n)) for n in range(3)]
    cost = cost_to_recover([Point(step=1, tokens=1, flops=1e9, score=5.0)], path, 0.5)
    assert (cost.flops, cost.ratio) == (1e9, None)


def test_cost_to_recover_is_that_of_the_first_point_that_gets_there() -> None:
    reference, attack = points(0, 5, 10), points(-2, 2, 6, 9, flops=100.0)
    half = cost_to_recover(attack, reference, 0.5)
    assert (half.flops, half.step, half.tokens, half.ratio, half.censored) == (200.0, 2, 20, 200.0, False)
    most = cost_to_recover(attack, reference, 0.9)
    assert (most.flops, most.ratio) == (300.0, 150.0)


def test_what_the_budget_did_not_reach_is_censored_not_missing() -> None:
    found = costs_to_recover(points(0, 1, 2), points(0, 10))["0.5"]
    assert (found.flops, found.ratio, found.censored) == (None, None, True)
    assert found.reason
    for attack, reference in (([], points(0, 1)), (points(0, 1), []), (points(0, 1), points(1, 1))):
        unknown = cost_to_recover(attack, reference, 0.5)
        assert (unknown.flops, unknown.censored) == (None, False)
        assert unknown.reason


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=8), st.floats(0.1, 0.9), st.floats(0.1, 0.9))
def test_more_recovery_never_costs_less(scores: list[float], a: float, b: float) -> None:
    less, more = (cost_to_recover(points(*scores), points(0, 3, 9), level) for level in sorted((a, b)))
    if more.flops is not None:
        assert less.flops is not None
        assert less.flops <= more.flops
