"""Minimal pairs: enough, distinct, balanced, the same everywhere; and lm-eval runs the task."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

import harness.utility
from harness.minimal_pairs import NAMES, PER_PHENOMENON, PHENOMENA, MinimalPair, minimal_pairs
from harness.plugins import Released

TASKS = Path(harness.utility.__file__).parent / "tasks"


def test_pairs_are_many_and_distinct() -> None:
    pairs = minimal_pairs()
    assert len(pairs) >= 600
    assert len({pair.id for pair in pairs}) == len(pairs)
    assert len({(pair.good, pair.bad) for pair in pairs}) == len(pairs)
    assert not {pair.good for pair in pairs} & {pair.bad for pair in pairs}


def test_pairs_are_balanced_over_phenomena() -> None:
    assert Counter(pair.phenomenon for pair in minimal_pairs()) == dict.fromkeys(NAMES, PER_PHENOMENON)


def test_pairs_are_deterministic() -> None:
    assert minimal_pairs() == minimal_pairs()


def _difference(pair: MinimalPair) -> tuple[list[str], list[str]]:
    """The words of each sentence between what both begin and end with."""
    good, bad = pair.good.split(), pair.bad.split()
    while good and bad and good[0] == bad[0]:
        good, bad = good[1:], bad[1:]
    while good and bad and good[-1] == bad[-1]:
        good, bad = good[:-1], bad[:-1]
    return good, bad


def test_two_sentences_differ_in_one_place() -> None:
    for pair in minimal_pairs():
        good, bad = _difference(pair)
        assert 1 <= len(good) <= 2, pair
        assert 1 <= len(bad) <= 2, pair


def test_liking_one_form_better_scores_chance() -> None:
    """Best score of a scorer that ranks the two differing forms alone, without the rest of the sentence."""
    for name in set(NAMES) - {"plural_form", "word_order"}:
        wins: dict[frozenset[str], Counter[str]] = {}
        for pair in minimal_pairs():
            if pair.phenomenon == name:
                good, bad = (" ".join(part).strip(".").lower() for part in _difference(pair))
                wins.setdefault(frozenset((good, bad)), Counter())[good] += 1
        assert sum(max(counter.values()) for counter in wins.values()) == PER_PHENOMENON / 2, name


def test_every_stratum_has_enough_candidates() -> None:
    for function in PHENOMENA:
        strata = Counter(candidate.stratum for candidate in function())
        assert PER_PHENOMENON % len(strata) == 0
        assert min(strata.values()) >= PER_PHENOMENON // len(strata), function.__name__


def test_lm_eval_scores_the_task(tiny_llama: Released) -> None:
    """lm-eval's own evaluator, from our folder alone, network off (conftest)."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(TASKS), include_defaults=False)
    lm = HFLM(pretrained=tiny_llama.model, tokenizer=tiny_llama.tokenizer, batch_size=64)
    results = simple_evaluate(lm, tasks=["minimal_pairs"], task_manager=manager, bootstrap_iters=0)
    scores = results["results"]["minimal_pairs"]
    by_phenomenon = [scores[f"{name},none"] for name in NAMES]
    assert scores["acc,none"] == pytest.approx(sum(by_phenomenon) / len(NAMES))
    assert results["n-samples"]["minimal_pairs"]["effective"] == len(minimal_pairs())
    sample = results["samples"]["minimal_pairs"][0]
    assert [arguments[1] for arguments in sample["arguments"]] == [sample["doc"]["good"], sample["doc"]["bad"]]
