"""A search inside a cell, on a random model: alike on both sides, on the bill, blind to the test split, resumable."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import probes
from harness.bill import total
from harness.cache import Cache
from harness.cell import run_cell
from harness.numbers.scoring import utilities
from harness.plugins import Task
from harness.progress import Progress
from harness.records.recheck import recheck
from harness.records.record import Record
from harness.records.sections import Flag, Severity
from harness.search.attacker import search
from harness.search.curve import SearchCurve
from harness.search.kept import share_kept
from harness.search.study import JOURNAL
from harness.spec import Spec, resolve
from harness.untouched import as_item
from harness.utility import UtilityScores
from harness.workshop import Workshop
from leaderboards.load import load_results

QUICK: dict[str, Any] = {
    "replicates": 1,
    "utility": {"limit": 4, "perplexity_tokens": 300},
    "attack": {"name": "full", "max_steps": 3, "per_device_train_batch_size": 2, "block_size": 32, "eval_points": 1},
    "task": {"name": "python_source", "max_items": 6, "train_bytes": 30_000},
    "search": {"trials": 3},
}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return shop(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def done(model: str, workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, Path]:
    """One searched cell of the undefended control, and the folder it is in."""
    out = tmp_path_factory.mktemp("out")
    return run_cell(spec_of(model), out=out, workshop=workshop), out


def shop(folder: Path) -> Workshop:
    return Workshop(cache=Cache(folder), data_dir=None, progress=Progress(quiet=True))


def spec_of(model: str, **changes: Any) -> Spec:
    return resolve({**QUICK, "model": {"name": model}, **changes})


def search_once(spec: Spec, workshop: Workshop, task: Task | None = None) -> SearchCurve:
    found = search(workshop, spec, task or spec.build_task(None), *[lambda: workshop.base(spec)] * 2, "reference")
    assert found is not None
    return found


def told(found: SearchCurve) -> list[Any]:
    """Everything of a search but seconds and the host's memory."""
    return [found.chosen, found.attack, [(t.outcome, t.params, t.score, t.bill.steps, t.flops) for t in found.trials]]


def test_locked_and_base_get_the_same_number_of_trials_and_start_alike(done: tuple[Record, Path]) -> None:
    record, _ = done
    assert record.status == "complete", record.status_reason
    assert record.search is not None
    ours, theirs = record.search.attacked, record.search.reference
    assert ours is not None and theirs is not None  # noqa: PT018
    assert len(ours.trials) == len(theirs.trials) == record.spec["search"]["trials"] == 3  # type: ignore[index, call-overload]
    assert ours.trials[0].params == theirs.trials[0].params
    assert ours.trials[0].params == {key: record.spec["attack"][key] for key in ours.trials[0].params}  # type: ignore[index, call-overload]
    assert ours.trials[0].score != theirs.trials[0].score  # the control attacks with seeds of its own
    assert not record.errors


def test_the_bills_add_up_exactly(done: tuple[Record, Path], workshop: Workshop, model: str) -> None:
    record, _ = done
    cost, searches = record.cost, record.search
    assert cost.search is not None and cost.attack is not None and cost.reference is not None and searches  # noqa: PT018
    assert searches.attacked is not None and searches.reference is not None  # noqa: PT018
    assert cost.search == searches.attacked.bill == total(trial.bill for trial in searches.attacked.trials)
    assert cost.search.steps == sum(trial.bill.steps for trial in searches.attacked.trials) >= 3
    assert [trial.flops for trial in searches.attacked.trials][-1] == cost.search.flops
    attacker = cost.attacker()
    assert attacker is not None
    assert attacker.flops == cost.search.flops + cost.attack.flops
    assert record.trajectory[0].flops == cost.search.flops
    assert record.trajectory[-1].flops == attacker.flops
    assert record.reference_trajectory[0].flops == searches.reference.bill.flops
    assert record.reference_trajectory[-1].flops == cost.reference.flops
    assert record.trajectory[-1].tokens == cost.search.tokens + cost.attack.tokens


def test_verify_tells_a_searched_run_from_one_that_trained_alike(
    done: tuple[Record, Path], model: str, workshop: Workshop, tmp_path: Path
) -> None:
    record, out = done
    assert record.search is not None and record.search.attacked is not None  # noqa: PT018
    alike = run_cell(spec_of(model, attack=record.search.attacked.attack, search={"trials": 0}), out=tmp_path,
                     workshop=workshop)  # fmt: skip
    assert alike.provenance.weights.attacked == record.provenance.weights.attacked
    cells = [cell for folder in (out, tmp_path) for cell in load_results(folder).cells]
    cache = workshop.cache.root

    mismatches, notes = recheck(cells, data_dir=None, cache=cache)
    assert not mismatches
    assert "cost: rechecked 2 times" in notes
    assert "search.attacked: rechecked 1 times" in notes

    searched = next(cell for cell in cells if cell.record.id == record.id)
    fewer = record.search.attacked.model_copy(update={"trials": record.search.attacked.trials[:2]})
    altered = record.model_copy(update={"search": record.search.model_copy(update={"attacked": fewer})})
    mismatches, notes = recheck([replace(searched, record=altered)], data_dir=None, cache=cache)
    assert not mismatches
    assert "cost: rechecked 0 times; not 1 times: the cache has another search" in notes


def test_what_was_chosen_is_what_was_run_with_a_fresh_seed(
    done: tuple[Record, Path], model: str, workshop: Workshop
) -> None:
    record, _ = done
    assert record.search is not None and record.search.attacked is not None  # noqa: PT018
    found = record.search.attacked
    assert found.chosen is not None
    chosen = found.trials[found.chosen]
    assert chosen.score == max(trial.score for trial in found.trials if trial.score is not None)
    assert found.attack == {**spec_of(model).attack, **chosen.params}
    assert record.cost.attack is not None
    assert record.cost.attack.steps == found.attack["max_steps"]
    assert record.trajectory[-1].score != chosen.score  # the same settings, other seeds
    keys = [json.loads(path.read_text())["key"] for path in workshop.cache.root.glob("*/*/entry.json")]
    seeds = {kind: {key["seed"] for key in keys if ("proposals" in key) == (kind == "searches") and "attack" in key}
             for kind in ("searches", "runs")}  # fmt: skip
    assert len(seeds["searches"]) == len(seeds["runs"]) == 2
    assert not seeds["searches"] & seeds["runs"]


def test_a_long_attack_is_tried_as_a_short_one_whose_search_it_shares(
    model: str, workshop: Workshop, tmp_path: Path
) -> None:
    spec = spec_of(model, attack={**QUICK["attack"], "name": "until_flat", "doublings": 1, "flat": 0.9})
    search_once(spec_of(model), workshop)
    made = set((workshop.cache.root / "searches").glob("*/entry.json"))
    search_once(spec, workshop)
    assert set((workshop.cache.root / "searches").glob("*/entry.json")) == made
    record = run_cell(spec, out=tmp_path, workshop=workshop)
    assert record.status == "complete", record.status_reason
    assert record.search is not None and record.search.attacked is not None  # noqa: PT018
    found = record.search.attacked
    assert [trial.bill.steps for trial in found.trials] == [trial.params["max_steps"] for trial in found.trials]
    assert found.attack == {**spec.attack, **found.chosen_params}
    assert record.cost.attack is not None
    assert record.cost.attack.steps == 3 * found.attack["max_steps"]


def test_the_record_verifies_and_shows_the_search(done: tuple[Record, Path], capsys: Any) -> None:
    from leaderboards.summary import cell_summary
    from leaderboards.verify import verify

    record, out = done
    assert verify(out) == []
    shown = cell_summary(record)
    assert "best so far by trial: 0: " in shown
    assert all(len(line) <= 100 for line in shown.splitlines())
    path = out / "cells" / record.id / "record.json"
    raw = json.loads(path.read_text())
    raw["search"]["attacked"]["trials"][0]["bill"]["forward_flops"] *= 2
    path.write_text(json.dumps(raw))
    fields = {mismatch.field for mismatch in verify(out)}
    path.write_text(record.model_dump_json(indent=1))
    assert {"search.attacked.trials", "search.attacked.bill.forward_flops", "cost.search.forward_flops"} <= fields


def test_no_trial_sees_the_test_split(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, workshop = spec_of(model, search={"trials": 2}), shop(tmp_path)
    task = spec.build_task(None)
    seen: list[str] = []
    real = task.score
    monkeypatch.setattr(task, "score", lambda released, split, **limits: seen.append(split) or real(released, split))
    found = search_once(spec, workshop, task)
    assert set(seen) == {"selection"}
    assert len(seen) == 1 + 2 * 2  # the start of all trials, one point and the end of each
    workshop.run(spec, task, workshop.base(spec), "reference", 0, None, found)
    assert "test" in seen  # only afterwards, and the spy would have noticed


def test_a_killed_search_goes_on_and_ends_as_if_it_had_not_been(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(model, search={"trials": 4})
    straight = search_once(spec, shop(tmp_path / "straight"))
    assert told(search_once(spec, shop(tmp_path / "again"))) == told(straight)
    calls = []
    real = Workshop.fine_tune

    def killed(self: Workshop, *arguments: Any, **named: Any) -> Any:
        calls.append(arguments)
        *first, report = arguments
        return real(self, *first, dying(report) if len(calls) == 3 else report, **named)

    def dying(report: Callable[[float], None]) -> Callable[[float], None]:
        points: list[float] = []

        def die(score: float) -> None:
            report(score)
            points.append(score)
            if len(points) == 2:
                raise KeyboardInterrupt

        return die

    monkeypatch.setattr(Workshop, "fine_tune", killed)
    resumed = shop(tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        search_once(spec, resumed)
    assert list((tmp_path / "killed" / "searches").glob(f"*.work/{JOURNAL}"))
    found = search_once(spec, resumed)
    assert len(calls) == 3 + 2  # two were done, the third was made again
    assert told(found) == told(straight)
    assert search_once(spec, resumed) == found  # found in the cache, not searched again
    assert len(calls) == 5
    (folder,) = (path.parent for path in (tmp_path / "killed" / "searches").glob("*/entry.json"))
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    kept = optuna.load_study(study_name="search", storage=JournalStorage(JournalFileBackend(str(folder / JOURNAL))))
    assert kept.best_params == found.trials[found.chosen or 0].params


def test_the_budget_covers_search_and_attack_together(model: str, workshop: Workshop, tmp_path: Path) -> None:
    spec = spec_of(model, budget="steps=9,trials=2", search={})
    record = run_cell(spec, out=tmp_path, workshop=workshop)
    assert record.search is not None and record.search.attacked is not None and record.cost.attack  # noqa: PT018
    trials = record.search.attacked.trials
    assert [trial.bill.steps <= 3 for trial in trials] == [True, True]
    attacker = record.cost.attacker()
    assert attacker is not None
    assert record.cost.attack.steps == min(9 - sum(t.bill.steps for t in trials),
                                           record.search.attacked.attack["max_steps"])  # type: ignore[type-var]  # fmt: skip
    assert attacker.steps <= 9


def test_a_trial_that_needs_too_much_memory_fails_alone(model: str, workshop: Workshop) -> None:
    wide = {"trials": 4, "pruner": False, "sampler": "random",
            "space": {"per_device_train_batch_size": {"kind": "choice", "values": [2, 512]}}}  # fmt: skip
    found = search_once(spec_of(model, search=wide, budget="memory=20MiB"), workshop)
    outcomes = {trial.params["per_device_train_batch_size"]: trial.outcome for trial in found.trials}
    assert outcomes == {2: "complete", 512: "failed"}
    assert len(found.trials) == 4
    reasons = [trial.reason for trial in found.trials if trial.outcome == "failed"]
    assert all("budget.memory is 20971520" in str(reason) for reason in reasons)
    assert found.attack["per_device_train_batch_size"] == 2
    assert found.bill.peak_device_bytes == 20 * 2**20


def test_a_rate_at_which_training_diverges_is_a_failed_trial(model: str, workshop: Workshop) -> None:
    wild = {"trials": 2, "space": {"learning_rate": {"kind": "uniform", "low": 1e36, "high": 1e38},
                                   "optim": {"kind": "choice", "values": ["sgd"]},
                                   "max_steps": {"kind": "choice", "values": [3]}}}  # fmt: skip
    found = search_once(spec_of(model, search=wild), workshop)
    bad = [trial for trial in found.trials if float(trial.params["learning_rate"]) > 1e30]  # type: ignore[arg-type]
    assert bad
    assert {trial.outcome for trial in bad} == {"failed"}
    assert found.chosen == 0


def test_without_optuna_the_record_says_so(
    model: str, workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = probes.find_spec
    monkeypatch.setattr(probes, "find_spec", lambda name: None if name == "optuna" else real(name))
    record = run_cell(spec_of(model, search={"trials": 5}), out=tmp_path, workshop=workshop)
    assert record.status == "unavailable"
    assert record.status_reason == "search.trials=5: optuna is not installed (pip install 'lockbench[search]')"
    assert record.score.base.value is not None
    assert run_cell(spec_of(model, search={}), out=tmp_path, workshop=workshop).status == "complete"


def test_a_search_is_another_attacker_in_the_ranking(done: tuple[Record, Path]) -> None:
    from harness.numbers.labels import attack_of, label_of, labels

    record, _ = done
    plain = record.model_copy(update={"spec": {key: part for key, part in record.spec.items() if key != "search"}})
    known = labels([attack_of(record), attack_of(plain)])
    assert label_of(known, attack_of(plain)) == "full"
    assert label_of(known, attack_of(record)).startswith("full (search=3 trials by tpe in space ")


@pytest.mark.parametrize(("severity", "outcome"), [("warning", "complete"), ("error", "failed")])
def test_a_trial_fails_by_what_would_not_count_and_by_nothing_less(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, severity: Severity, outcome: str
) -> None:
    flag = Flag(flag="diverged", severity=severity, detail="the loss was not finite at some step")
    monkeypatch.setattr("harness.search.attacker.run_flags", lambda run, who: [flag])
    found = search_once(spec_of(model, search={"trials": 1}), shop(tmp_path))
    assert [trial.outcome for trial in found.trials] == [outcome]


def test_a_search_may_ask_for_a_model_of_use(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates at which the model forgets its English have failed, whatever they gain; the best of the rest is chosen."""
    from harness.search import kept

    asked: list[float] = []

    def share(base: UtilityScores, attacked: UtilityScores) -> float:
        asked.append(0.5 if len(asked) in (0, 2) else 0.95)
        return asked[-1]

    monkeypatch.setattr(kept, "share_kept", share)
    spec = spec_of(model, search={"trials": 4, "keep_utility": True, "pruner": False})
    found = search_once(spec, shop(tmp_path))
    assert [trial.outcome for trial in found.trials] == ["failed", "complete", "failed", "complete"]
    assert [trial.reason for trial in found.trials][::2] == [
        "Dead: keeps 0.50 of the base's utility, less than 0.9"
    ] * 2
    assert found.chosen in (1, 3)


def test_what_is_kept_is_what_a_record_says(done: tuple[Record, Path], workshop: Workshop, model: str) -> None:
    spec = spec_of(model)
    base = workshop.utility(spec, workshop.base(spec))
    assert share_kept(base, base) in (1.0, None)
    chances = {name: task.chance for name, task in base.tasks.items()}
    items = [as_item(item, "base", None) for item in base.items]
    assert share_kept(base, base) == utilities([*items, *[replace(item, model="attacked", seed=0) for item in items]],
                                               chances).attacked.retention  # fmt: skip


def test_a_spec_without_it_is_as_before(model: str) -> None:
    assert "keep_utility" not in spec_of(model).model_dump(mode="json")["search"]
    kept = spec_of(model, search={"trials": 3, "keep_utility": True})
    assert kept.model_dump(mode="json")["search"]["keep_utility"] is True
    assert kept.id != spec_of(model).id
