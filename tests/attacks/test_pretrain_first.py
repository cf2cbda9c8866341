"""Public text before the task, on the attacker's bill."""

from __future__ import annotations

from typing import Any

import pytest
from attack_cases import build, context, released

from harness.errors import UsageError


def test_the_pretraining_is_on_the_bill_and_reads_the_training_text(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def corpus(*arguments: Any) -> list[str]:
        asked.append(arguments)
        return ["some public text about nothing in particular. " * 50]

    monkeypatch.setattr("harness.corpus.corpus", corpus)
    where = context()
    result = build("pretrain_first", pretrain_steps=7).attack(released("dlr_llama"), where)
    assert asked == [("python_docs", "train", None)]
    undo, attack = where.meter.bills["undo"], where.meter.bills["attack"]
    assert (undo.steps, attack.steps) == (7, 12)
    assert undo.tokens == 7 * 4 * 32
    assert undo.backward_flops > 0
    assert result.report == {"pretrain_steps": 7}


def test_a_corpus_that_needs_the_pack_is_refused_before_anything_runs() -> None:
    where = context()
    with pytest.raises(UsageError, match="'wikitext2' needs"):
        build("pretrain_first", corpus="wikitext2").attack(released("llama"), where)
    assert where.meter.total.steps == 0
    with pytest.raises(UsageError, match=r"attack\.corpus='nothing'"):
        build("pretrain_first", corpus="nothing")


@pytest.mark.parametrize("budget", ["steps=10", "tokens=2000", "flops=4e8"])
def test_the_pretraining_leaves_half_of_any_budget_to_the_task(budget: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.corpus.corpus", lambda *_: ["text " * 500])
    where = context(budget=budget)
    build("pretrain_first", pretrain_steps=1000, max_steps=1000).attack(released("dlr_llama"), where)
    name = budget.partition("=")[0]
    spent = {stage: getattr(bill, name) for stage, bill in where.meter.bills.items()}
    assert spent["attack"] >= 0.4 * sum(spent.values())
    assert spent["undo"] > 0
    assert sum(spent.values()) <= getattr(where.meter.budget, name)
