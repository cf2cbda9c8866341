"""Spaces, the section of the spec, and the trials of a search over a made-up attack: no model, no torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import registry
from harness.bill import Bill
from harness.budget import Budget
from harness.errors import OutOfMemory, OverBudget, UsageError
from harness.layers import layers
from harness.meters.meter import Meter
from harness.search.curve import SearchCurve, Trial, TrialOutcome, curve
from harness.search.rates import NEAR, closer, openings
from harness.search.run import run_trials
from harness.search.space import Choice, Integers, LogUniform, Uniform
from harness.search.spec import SearchSpec
from harness.search.study import JOURNAL, Study
from harness.spec import Spec, resolve

GIVEN = {"name": "made_up", "rate": 1e-5, "batch": 8, "warmup": 0.05, "depth": 3}
SPACE = {"rate": LogUniform(low=1e-6, high=1.0), "batch": Choice(values=(4, 8, "all")),
         "warmup": Uniform(low=0.0, high=0.3), "depth": Integers(low=1, high=9)}  # fmt: skip
Report = Callable[[float], None]


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal survives power failures; these tests have none, and a busy disk would make them minutes long."""
    monkeypatch.setattr("os.fsync", lambda handle: None)


def score_of(params: dict[str, Any]) -> float:
    """Best at a rate of 1e-3 and no warm-up."""
    return -abs(math.log10(params["rate"]) + 3) - float(params["warmup"])


def attempt(params: dict[str, Any], meter: Meter, report: Report) -> float:
    """A made-up attack: a trajectory of four points after the start, 5 FLOPs each."""
    report(-9.0)
    for point in range(1, 5):
        with meter.stage("attack"):
            meter.charge(Bill(forward_flops=2, backward_flops=3, tokens=7, steps=1))
        report(score_of(params) - 1 + point / 4)
    return score_of(params)


def searched(folder: Path, run: Any = attempt, *, budget: str = "", seed: int = 1, **changes: Any) -> SearchCurve:
    folder.mkdir(exist_ok=True)
    spec = SearchSpec.model_validate({"trials": 12, "space": SPACE, **changes})
    study = Study(folder, spec, seed, GIVEN)
    return curve(run_trials(study, spec.trials, Budget.from_text(budget), run), GIVEN)


def told(found: SearchCurve) -> list[Any]:
    """Everything of a search but its seconds and the host's memory."""
    return [found.chosen, found.attack, [(t.number, t.outcome, t.reason, t.params, t.score, t.best, t.flops)
                                         for t in found.trials]]  # fmt: skip


@pytest.mark.parametrize("name", registry.attacks().names())
def test_every_attack_declares_a_space_around_its_own_settings(name: str) -> None:
    language = "causal_lm" in registry.attacks().get(name).kinds
    about = {} if language else {"model": "resnet-tiny", "task": "digits"}
    spec = resolve({"attack": name, **about, "search": {"trials": 2}})
    rate = spec.search.space["learning_rate"]
    assert isinstance(rate, LogUniform)
    assert math.log10(rate.high / rate.low) >= 5
    searched = set(spec.search.space)
    assert {"warmup_ratio", "lr_scheduler_type", "per_device_train_batch_size", "max_steps"} <= searched
    assert ("r" in searched) == ("lora" in name)
    assert ("optim" in searched) == (name not in ("full_8bit", "full_trainer", "offload", "mezo"))
    assert max(spec.search.space["max_steps"].examples()) == spec.attack["max_steps"]
    for key, each in spec.search.space.items():
        assert each.including(spec.attack[key]) == each


@given(st.floats(1e-12, 1e12), st.integers(-50, 50))
def test_a_widened_range_holds_the_value_and_its_old_ends(value: float, whole: int) -> None:
    for each, new in ((LogUniform(low=1e-3, high=1e-1), value), (Uniform(low=0, high=1), value),
                      (Integers(low=3, high=5), whole)):  # fmt: skip
        wide = each.including(new)
        assert wide.low <= min(new, each.low) <= max(new, each.high) <= wide.high
        assert wide.including(new) == wide
    assert whole in Choice(values=(1, 2)).including(whole).values


def test_without_a_search_the_cell_is_the_one_it_always_was() -> None:
    plain = resolve({"attack": "full"})
    assert "search" not in plain.model_dump()
    assert plain.id == resolve({"attack": "full", "search": {"sampler": "random", "trials": 0}}).id
    rates = {"learning_rate": {"kind": "uniform", "low": 0.1, "high": 0.2}}
    searches = [{"trials": 3}, {"trials": 4}, {"trials": 3, "sampler": "random"}, {"trials": 3, "pruner": False},
                {"trials": 3, "space": rates}]  # fmt: skip
    ids = {resolve({"attack": "full", "search": search}).id for search in searches}
    assert len(ids | {plain.id}) == 6


@pytest.mark.parametrize(("raw", "trials"), [
    ({"budget": "trials=5"}, 5), ({"budget": "trials=5", "search": {"trials": 3}}, 3),
    ({"budget": "trials=5", "search": {"trials": 9}}, 5), ({"budget": "trials=5", "search": {"trials": 0}}, 0),
    ({"search": {"trials": 7}}, 7), ({}, 0), ({"budget": "steps=3"}, 0),
])  # fmt: skip
def test_trials_come_from_the_search_within_the_budget(raw: dict[str, Any], trials: int) -> None:
    spec = resolve(raw)
    assert spec.search.trials == trials
    again = resolve(spec.model_dump(mode="json"))
    assert (again, again.id) == (spec, spec.id)
    assert Spec.model_validate_json(spec.model_dump_json()) == spec


def test_command_line_and_environment() -> None:
    spec = resolve(layers(None, {"HARNESS_SEARCH__SAMPLER": "random"}, {}, ["search.trials=20"]))
    assert (spec.search.trials, spec.search.sampler) == (20, "random")


@pytest.mark.parametrize(("raw", "message"), [
    ({"trials": -1}, r"search\.trials=-1"),
    ({"trials": 1, "sampler": "grid"}, r"sampler='grid'.*'tpe' or 'random'"),
    ({"trials": 1, "space": {"rr": {"kind": "choice", "values": [1]}}}, "unknown setting of the attack .* 'rr'"),
    ({"trials": 1, "space": {"r": {"kind": "choice", "values": [4, -1]}}}, r"attack\.r=-1"),
    ({"trials": 1, "space": {"r": {"kind": "uniform", "low": 1, "high": 6}}}, r"attack\.r=.*integer"),
    ({"trials": 1, "space": {"optim": {"kind": "uniform", "low": 1, "high": 6}}}, "'adamw_torch' is not a number"),
    ({"trials": 1, "space": {"r": {"kind": "integers", "low": 9, "high": 6}}}, "low=9 is above high=6"),
    ({"trials": 1, "space": {"r": {"kind": "normal"}}}, "log_uniform"),
])  # fmt: skip
def test_bad_searches_are_refused_in_one_line(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        resolve({"attack": "lora", "search": raw})
    assert "\n" not in str(caught.value)


def test_a_budget_without_a_step_for_each_trial_is_refused() -> None:
    with pytest.raises(UsageError, match=r"budget\.steps=20 has not one for each of 20 trials and the attack"):
        resolve({"budget": "steps=20", "search": {"trials": 20}})
    part = Budget.from_text("steps=20,tokens=100,flops=30,memory=9,examples=4,trials=2").part(3)
    assert part == Budget(steps=6, tokens=33, flops=10.0, memory=9, examples=4)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_settings_as_given_come_first_and_the_search_beats_them(tmp_path: Path, sampler: str) -> None:
    found = searched(tmp_path, sampler=sampler, trials=16)
    assert found.trials[0].params == {key: GIVEN[key] for key in SPACE}
    assert len(found.trials) == 16
    chosen = found.trials[found.chosen or 0]
    assert chosen.score == max(t.score for t in found.trials if t.score is not None) > score_of(GIVEN)
    assert found.attack == {**GIVEN, **chosen.params}
    for trial in found.trials:
        assert 1e-6 <= trial.params["rate"] <= 1.0
        assert trial.params["batch"] in (4, 8, "all")
        assert trial.params["depth"] in range(1, 10)


@pytest.mark.parametrize(("trials", "far", "near"), [
    (1, [1], 0), (2, [1, 0.1], 0), (3, [1, 0.1], 1), (8, [1, 0.1, 10, 0.01, 1e-4], 3),
    (40, [1, 0.1, 10, 0.01, 1e-4, 1e-3, 1e-5], 4),
])  # fmt: skip
def test_a_guided_search_tries_far_rates_and_then_near_the_best(
    tmp_path: Path, trials: int, far: list[float], near: int
) -> None:
    def run(params: dict[str, Any], meter: Meter, report: Report) -> float:
        return -abs(math.log10(params["learning_rate"]) + 4)

    study = Study(tmp_path, SearchSpec(trials=trials, space=RATES), 1, {**GIVEN, "learning_rate": 3e-3})
    done = run_trials(study, trials, Budget(), run)
    rates = [trial.params["learning_rate"] for trial in done]
    assert rates[: len(far)] == pytest.approx([3e-3 * factor for factor in far])
    best = 3e-4 if trials > 1 else 3e-3
    closer = [best * 10**0.5, best * 10**-0.5, best * 10**-0.25, best * 10**-0.75]  # the third is by the second: 9.5e-5
    assert rates[len(far) : len(far) + near] == pytest.approx(closer[:near])
    assert {trial.params["batch"] for trial in done[: len(far) + near]} == {8}
    assert len(set(rates)) == trials


RATES = {"learning_rate": LogUniform(low=1e-9, high=1.0), "batch": Choice(values=(4, 8))}


@pytest.mark.parametrize(("sampler", "space", "first"), [
    ("tpe", {"learning_rate": LogUniform(low=1e-4, high=1e-2)}, [3e-3, 3e-4]),
    ("random", RATES, [3e-3]), ("tpe", {"learning_rate": Uniform(low=1e-4, high=1e-2)}, [3e-3]),
])  # fmt: skip
def test_only_rates_of_a_logarithmic_space_open_a_search(sampler: str, space: Any, first: list[float]) -> None:
    spec = SearchSpec.model_validate({"sampler": sampler, "space": space, "trials": 8})
    tried, near = openings({"learning_rate": 3e-3}, spec)
    assert [each["learning_rate"] for each in tried] == pytest.approx(first)
    assert bool(near) == (len(first) > 1)


def test_all_rates_of_the_space_move_together_within_their_ranges() -> None:
    other = {"pretrain_learning_rate": LogUniform(low=1e-5, high=1e-1), "undo_learning_rate": Choice(values=(1.0, 2.0))}
    spec = SearchSpec(space={**RATES, **other}, trials=8)
    given = {"learning_rate": 3e-3, "pretrain_learning_rate": 2e-2, "undo_learning_rate": 1.0, "batch": 8}
    tried, _ = openings(given, spec)
    assert [each["pretrain_learning_rate"] for each in tried] == pytest.approx([2e-2, 2e-3, 1e-1, 2e-4, 1e-5])
    assert {each["undo_learning_rate"] for each in tried} == {1.0}
    best = Trial(number=0, outcome="complete", params=tried[1], score=1.0, bill=Bill())
    assert closer([best], spec) == {**tried[1], "learning_rate": pytest.approx(3e-4 * 10**0.5),
                                    "pretrain_learning_rate": pytest.approx(2e-3 * 10**0.5)}  # fmt: skip


def test_what_lies_near_the_best_is_not_tried_twice_nor_out_of_the_space() -> None:
    rates = SearchSpec(space={"learning_rate": LogUniform(low=1e-4, high=1e-2)})

    def trial(number: int, rate: float, score: float | None) -> Trial:
        outcome: TrialOutcome = "failed" if score is None else "complete"
        params: dict[str, Any] = {"learning_rate": rate, "batch": 4}
        return Trial(number=number, outcome=outcome, params=params, score=score, bill=Bill())

    done = [trial(0, 1e-3, 1.0), trial(1, 1e-3 * 10**0.5, None), trial(2, 9e-3, 0.5)]
    assert closer(done, rates) == {"learning_rate": pytest.approx(1e-3 * 10**-0.5), "batch": 4}
    assert closer(done[1:], rates) == {"learning_rate": pytest.approx(9e-3 * 10**-0.5), "batch": 4}
    assert closer([trial(0, 2e-4, 0.0), trial(1, 2e-4 * 10**0.5, None)], rates) == {
        "learning_rate": pytest.approx(2e-4 * 10**0.25), "batch": 4}  # fmt: skip
    around = [trial(number, 1e-3 * factor, None) for number, factor in enumerate(NEAR, 1)]
    assert closer([trial(0, 1e-3, 1.0), *around], rates) is None
    assert closer([trial(0, 2e-4, None)], rates) is None
    assert closer([], rates) is None


def test_a_best_rate_that_moved_up_wastes_no_trial(tmp_path: Path) -> None:
    """The way back is known then; the trial goes to the next rate near it, not to one from all nine decades."""

    def run(params: dict[str, Any], meter: Meter, report: Report) -> float:
        return -abs(math.log10(params["learning_rate"] / 3e-3) - 0.45)

    study = Study(tmp_path, SearchSpec(trials=8, space=RATES), 1, {**GIVEN, "learning_rate": 3e-3})
    rates = [trial.params["learning_rate"] / 3e-3 for trial in run_trials(study, 8, Budget(), run)]
    assert rates[5:] == pytest.approx([10**0.5, 10**0.75, 10**0.25])


def test_pruned_trials_count_and_cost_what_they_used(tmp_path: Path) -> None:
    found = searched(tmp_path / "on")
    pruned = [trial for trial in found.trials if trial.outcome == "pruned"]
    assert pruned
    assert len(found.trials) == 12
    for trial in pruned:
        assert trial.score is None
        assert trial.reason is not None and "below the median at point" in trial.reason  # noqa: PT018
        assert 10 <= trial.bill.flops < 20
        finished = sorted(t.score for t in found.trials[: trial.number] if t.score is not None)
        assert len(finished) >= 4
        assert score_of(trial.params) < finished[len(finished) // 2]
    straight = searched(tmp_path / "off", pruner=False)
    assert {trial.outcome for trial in straight.trials} == {"complete"}
    assert found.bill.flops == 20 * 12 - sum(20 - trial.bill.flops for trial in pruned) < straight.bill.flops == 240


def test_a_trial_that_dies_is_recorded_and_ends_nothing(tmp_path: Path) -> None:
    def fragile(params: dict[str, Any], meter: Meter, report: Report) -> float:
        number = len(calls)
        calls.append(params)
        with meter.stage("attack"):
            meter.charge(Bill(forward_flops=1))
            if number == 0:
                meter.charge(Bill(peak_device_bytes=10**6))  # above budget.memory
        if number == 1:
            raise OverBudget("budget.tokens does not allow a single step")
        if number == 2:
            raise RuntimeError("a plug-in's\nown bug")
        if number == 3:
            report(0.0)
            report(float("nan"))
        return attempt(params, meter, report)

    calls: list[Any] = []
    found = searched(tmp_path, fragile, budget="memory=5000,flops=13000", pruner=False)
    assert len(calls) == 12
    assert [trial.outcome for trial in found.trials] == ["failed"] * 4 + ["complete"] * 8
    reasons = [trial.reason or "" for trial in found.trials[:4]]
    assert reasons[0] == "OutOfMemory: needs 1000000 bytes on the device, budget.memory is 5000"
    assert reasons[1] == "OverBudget: budget.tokens does not allow a single step"
    assert reasons[2] == "RuntimeError: a plug-in's own bug"
    assert reasons[3] == "Dead: the score is nan at point 1 of the trajectory"
    assert found.bill.flops == sum(trial.bill.flops for trial in found.trials) == 12 + 8 * 20
    assert found.bill.peak_device_bytes == 5000  # it asked for more and had no more
    assert found.chosen is not None
    assert found.chosen >= 4


def test_when_every_trial_dies_the_settings_as_given_remain(tmp_path: Path) -> None:
    def hopeless(params: dict[str, Any], meter: Meter, report: Report) -> float:
        raise OutOfMemory("too small a machine")

    found = searched(tmp_path, hopeless, trials=3)
    assert (found.chosen, found.attack, len(found.trials)) == (None, GIVEN, 3)

    from harness.numbers.validity import search_flags

    assert [(f.flag, f.severity) for f in search_flags({"attacked": found})] == [("search_failed", "warning")]
    other = found.model_copy(update={"trials": found.trials[:2]})
    assert search_flags({"attacked": found, "reference": other})[0].flag == "unequal_searches"


@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.parametrize("when", [0, 1, 2, 7, 11])
def test_killed_and_resumed_it_is_the_search_it_would_have_been(tmp_path: Path, sampler: str, when: int) -> None:
    straight = searched(tmp_path / "straight", sampler=sampler)
    assert told(searched(tmp_path / "again", sampler=sampler)) == told(straight)
    calls: list[Any] = []

    def killed(params: dict[str, Any], meter: Meter, report: Report) -> float:
        calls.append(params)
        if len(calls) == when + 1:
            report(-9.0)
            report(0.0)  # half-way: a point is already in the journal
            raise KeyboardInterrupt
        return attempt(params, meter, report)

    folder = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        searched(folder, killed, sampler=sampler)
    (folder / f"{JOURNAL}.lock").symlink_to(folder / JOURNAL)  # what a kill may leave behind
    with (folder / JOURNAL).open("ab") as journal:
        journal.write(b'{"op_code":5,"worker')
    assert told(searched(folder, killed, sampler=sampler)) == told(straight)
    assert len(calls) == 13  # what had been done was not done again


def test_a_search_of_one_trial_is_the_settings_as_given(tmp_path: Path) -> None:
    assert searched(tmp_path, trials=1).attack == GIVEN


def test_another_seed_proposes_other_settings(tmp_path: Path) -> None:
    first, other = searched(tmp_path / "a"), searched(tmp_path / "b", seed=2)
    assert first.trials[0].params == other.trials[0].params
    assert first.trials[1].params != other.trials[1].params


@given(st.lists(st.tuples(st.none() | st.floats(-9, 9), st.integers(0, 10**6)), max_size=9))
def test_the_curve_follows_from_the_trials(made: list[tuple[float | None, int]]) -> None:
    trials = [Trial(number=i, outcome="failed" if score is None else "complete", params={"rate": i}, score=score,
                    bill=Bill(forward_flops=flops)) for i, (score, flops) in enumerate(made)]  # fmt: skip
    found = curve(trials, GIVEN)
    assert curve(found.trials, GIVEN) == found
    assert found.bill.flops == (found.trials[-1].flops if trials else 0)
    scores = [score for score, _ in made if score is not None]
    assert found.chosen == (next(i for i, (s, _) in enumerate(made) if s == max(scores)) if scores else None)
    best = [trial.best for trial in found.trials if trial.best is not None]
    assert best == sorted(best)
    assert best[-1:] == ([max(scores)] if scores else [])
