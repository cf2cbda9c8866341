from __future__ import annotations

from typing import Any

import pytest

from harness.numbers.validity import RunSummary, check
from harness.records.provenance import Weights
from harness.records.sections import Flag, Interval, Point, Utilities, Utility

DIGESTS: dict[str, Any] = {"base": "b" * 64, "locked": "l" * 64, "attacked": ["1" * 64, "2" * 64],
                           "reference": ["3" * 64, "4" * 64]}  # fmt: skip
PATH = [Point(step=k, tokens=k, flops=k, score=score) for k, score in enumerate((0, 8, 9, 9))]
LOSSES = [3 - 0.1 * step for step in range(20)]


def run(**changes: Any) -> RunSummary:
    good: dict[str, Any] = {"losses": LOSSES, "trained": ["a", "b"], "trainable_parameters": 500, "parameters": 1000,
                            "trajectory": PATH}  # fmt: skip
    return RunSummary(**{**good, **changes})


def flags(attacked: Any = None, reference: Any = None, weights: dict[str, Any] | None = None, defense: str = "dlr",
          utility: Utilities | None = None, gain: Interval | None = None) -> dict[str, Flag]:  # fmt: skip
    found = check(attacked=attacked or [run(), run()], reference=reference or [run(), run()], defense=defense,
                  weights=Weights(**{**DIGESTS, **(weights or {})}), utility=utility, gain=gain)  # fmt: skip
    return {flag.flag: flag for flag in found}


def test_a_sound_cell_has_no_flags() -> None:
    assert flags() == {}


@pytest.mark.parametrize(("fault", "flag"), [
    ({"unmoved": ["layer.7"]}, "unmoved"), ({"missing_gradients": ["layer.7"]}, "missing_gradients"),
    ({"nonfinite_gradients": ["layer.7"]}, "nonfinite_gradients"), ({"trained": []}, "nothing_trained"),
])  # fmt: skip
@pytest.mark.parametrize("side", ["attacked", "reference"])
def test_a_run_that_did_not_train_is_an_error(fault: dict[str, Any], flag: str, side: str) -> None:
    found = flags(**{side: [run(), run(**fault)]})
    assert list(found) == [flag]
    assert found[flag].severity == "error"
    if any("layer.7" in str(value) for value in fault.values()):
        assert "layer.7" in found[flag].detail


@pytest.mark.parametrize(("ours", "theirs", "flagged"), [
    (500, 500, []), (500, 900, []), (500, 1100, ["share_below_reference", "small_share"]),
    (1100, 9000, ["share_below_reference"]),
])  # fmt: skip
def test_next_to_nothing_of_a_model_is_an_error_where_more_of_the_base_is_trained(
    ours: int, theirs: int, flagged: list[str]
) -> None:
    """The head of a large classifier is as little of the base; targets that missed what a lock put in are not."""
    runs = [[run(parameters=10**6, trainable_parameters=number)] * 2 for number in (ours, theirs)]
    found = flags(*runs)
    assert sorted(found) == flagged
    assert "small_share" not in found or found["small_share"].severity == "error"


def test_a_small_share_is_the_point_of_adapters() -> None:
    few = run(parameters=10**7, trainable_parameters=500, trained=["q.lora_A", "q.lora_B"])
    assert list(flags([few, few], [run(trainable_parameters=2000)] * 2)) == ["share_below_reference"]


def test_a_target_without_a_trained_tensor_is_an_error() -> None:
    adapters = ["base_model.model.q.lora_A.default.weight", "base_model.model.q.lora_B.default.weight"]
    found = flags([run(trained=adapters, targets=["q", "blocks.1.reduce"]), run()])
    assert list(found) == ["untrained_targets"]
    assert found["untrained_targets"].severity == "error"
    assert found["untrained_targets"].detail.endswith(": blocks.1.reduce")
    assert flags([run(trained=adapters, targets=["q"]), run()]) == {}


def test_targets_that_missed_the_locks_layers_are_told() -> None:
    found = flags([run(trainable_parameters=200), run()], [run(trainable_parameters=500), run()])
    assert list(found) == ["share_below_reference"]
    assert found["share_below_reference"].severity == "warning"
    assert flags([run(trainable_parameters=400), run()]) == {}


@pytest.mark.parametrize("losses", [LOSSES[::-1], [2.0] * 20, [2.0, None], [2.0, float("nan")]])
def test_a_reference_that_does_not_learn_is_an_error(losses: list[float | None]) -> None:
    assert flags(reference=[run(losses=losses), run()])["loss_not_falling"].severity == "error"


def test_the_attack_on_the_lock_may_fail_to_learn() -> None:
    assert flags([run(losses=LOSSES[::-1]), run()]) == {}
    assert flags([run(losses=[*LOSSES, float("inf")]), run()])["diverged"].severity == "warning"


@pytest.mark.parametrize(("weights", "flag"), [
    ({"attacked": ["l" * 64, "2" * 64]}, "attacked_is_locked"),
    ({"reference": ["3" * 64, "b" * 64]}, "reference_is_base"),
    ({"attacked": ["3" * 64, "2" * 64]}, "attacked_is_reference"), ({"locked": "b" * 64}, "locked_is_base"),
    ({"attacked": ["1" * 64, "1" * 64]}, "equal_seeds"),
])  # fmt: skip
def test_equal_weights_where_they_must_differ_are_an_error(weights: dict[str, Any], flag: str) -> None:
    found = flags(weights=weights)
    assert list(found) == [flag]
    assert found[flag].severity == "error"


def test_the_undefended_control_may_be_the_base() -> None:
    assert flags(weights={"locked": "b" * 64}, defense="none") == {}


def test_collapse_one_seed_and_budget_are_told_but_count() -> None:
    utility = Utilities(attacked=Utility(perplexity=Interval(), retention=0.3), collapsed=True)
    assert flags(utility=utility)["collapsed"].severity == "warning"
    assert flags([run()])["one_seed"].severity == "info"
    assert flags([run(stopped_by="flops"), run()])["budget_used_up"].severity == "info"


def test_a_trajectory_that_still_rises_is_told() -> None:
    rising = [Point(step=k, tokens=k, flops=k, score=s) for k, s in enumerate((0, 3, 6, 9))]
    assert flags([run(trajectory=rising), run()])["still_rising"].severity == "info"


@pytest.mark.parametrize("scores", [(0, 8, 9, 5), (0, -1, -2, -2), (0, 9, 9, 0)])
@pytest.mark.parametrize("side", ["attacked", "reference"])
def test_more_budget_that_gives_less_is_told(scores: tuple[float, ...], side: str) -> None:
    falling = [Point(step=k, tokens=k, flops=k, score=score) for k, score in enumerate(scores)]
    found = flags(**{side: [run(trajectory=falling), run()]})
    assert list(found) == ["falls_at_end"]
    assert found["falls_at_end"].severity == "warning"


def test_a_small_dip_at_the_end_is_noise() -> None:
    assert flags([run(trajectory=[*PATH, Point(step=9, tokens=9, flops=9, score=7.5)]), run()]) == {}


def test_collapse_does_not_pass_for_safety() -> None:
    lost, kept = (Utility(perplexity=Interval(), retention=share) for share in (0.3, 0.97))
    collapsed = Utilities(locked=kept, attacked=lost, collapsed=True)
    failed = flags(utility=collapsed, gain=Interval(value=0.01, low=-0.02, high=0.04))
    assert list(failed) == ["collapsed", "collapse_is_not_safety"]
    assert failed["collapse_is_not_safety"].severity == "warning"
    assert list(flags(utility=collapsed, gain=Interval(value=0.5, low=0.4, high=0.6))) == ["collapsed"]
    ruined = flags(utility=Utilities(locked=lost, attacked=kept, collapsed=False))
    assert list(ruined) == ["locked_collapsed"]
    assert ruined["locked_collapsed"].severity == "warning"


def test_errors_come_first() -> None:
    found = check(
        attacked=[run(unmoved=["a"], stopped_by="flops")], reference=[run()], weights=Weights(), defense="dlr"
    )
    order = [flag.severity for flag in found]
    assert order == sorted(order, key=["error", "warning", "info"].index)
    assert len(order) == 3


def test_a_summary_takes_what_it_knows_of_a_training_result() -> None:
    found = RunSummary.of({"losses": [1.0], "steps": 3, "extra": {}, "unmoved": ["x"]}, parameters=7)
    assert (found.losses, found.unmoved, found.parameters) == ([1.0], ["x"], 7)
