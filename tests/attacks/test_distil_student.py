"""The locked model taught to a clean student: the lock stays behind in the teacher."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from attack_cases import build, context, random_gpt2, released

from attacks.student import build_student, same_form
from harness.models.digest import weights_digest
from harness.testing import random_llama


@pytest.mark.parametrize("model", ["dlr_llama", "dlr_gpt2"])
def test_the_student_is_the_base_and_comes_closer_to_the_teacher(model: str) -> None:
    where = context()
    result = build("distil_student", distil_steps=40).attack(released(model), where)
    base = random_llama() if "llama" in model else random_gpt2()
    assert type(result.model) is type(base)
    assert same_form(result.model, base)
    assert result.report["kl"] < 0.9 * result.report["kl_start"]
    undo = where.meter.bills["undo"]
    assert undo.steps == result.report["distil_steps"] == 40
    assert undo.tokens >= 40 * 8 * 32
    assert where.meter.bills["attack"].steps == 12


def test_nothing_is_differentiated_through_the_teacher_and_it_is_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    from defenses.dlr.modeling_dlr import DLRNet

    modes: list[bool] = []
    real = DLRNet.forward

    def forward(self: Any, x: torch.Tensor, *rest: Any, **named: Any) -> Any:
        modes.append(torch.is_grad_enabled())
        return real(self, x, *rest, **named)

    monkeypatch.setattr(DLRNet, "forward", forward)
    where = context()
    build("distil_student", distil_steps=3, max_steps=1, sampled_tokens=100).attack(released("dlr_llama"), where)
    assert len(modes) > 10
    assert not any(modes)
    undo, plain = where.meter.bills["undo"], context()
    build("full", max_steps=3, per_device_train_batch_size=8).attack(released("llama"), plain)
    assert undo.forward_flops > 2 * plain.meter.bills["attack"].forward_flops
    assert undo.kept_for_backward_bytes < 1.3 * plain.meter.bills["attack"].kept_for_backward_bytes


def test_reuse_takes_what_the_lock_left_and_random_takes_nothing() -> None:
    locked = released("dlr_llama").model
    student, reused = build_student(locked, "reuse", context())
    fresh, none = build_student(locked, "random", context())
    theirs, ours, others = (dict(m.named_parameters()) for m in (locked, student, fresh))
    assert sorted(reused) == sorted(name for name in ours if ".mlp." not in name)
    assert all(torch.equal(ours[name], theirs[name]) for name in reused)
    assert none == []
    assert not any(torch.equal(others[name], theirs[name]) for name in reused if "norm" not in name)
    again, _ = build_student(locked, "random", context())
    assert weights_digest(again) == weights_digest(fresh)


def test_a_weight_inside_a_locks_wrapper_is_not_taken_for_the_bases() -> None:
    class Wrapped(torch.nn.Linear):
        """A lock's layer whose `weight` means something else."""

    model = random_llama()
    model.model.layers[0].self_attn.q_proj = Wrapped(32, 32, bias=False)
    _, reused = build_student(model, "reuse", context())
    assert "model.layers.0.self_attn.q_proj.weight" not in reused
    assert "model.layers.1.self_attn.q_proj.weight" in reused


@pytest.mark.parametrize("lock", [None, {"defense": "none"}])
def test_without_a_lock_it_is_full_fine_tuning(lock: Any) -> None:
    where = context()
    target = dataclasses.replace(released("llama"), lock=lock)
    result = build("distil_student").attack(target, where)
    assert weights_digest(result.model) == weights_digest(build("full").attack(released("llama"), context()).model)
    assert set(where.meter.bills) == {"attack"}


def test_a_lock_on_values_alone_is_distilled_too() -> None:
    target = dataclasses.replace(released("llama"), lock={"defense": "pmp"})
    assert build("distil_student", max_steps=1).attack(target, context()).report["distil_steps"] == 20


@pytest.mark.parametrize("budget", ["steps=10", "tokens=6000", "flops=6e8"])
def test_the_distillation_leaves_half_of_any_budget_to_the_task(budget: str) -> None:
    where = context(budget=budget)
    build("distil_student", distil_steps=1000, max_steps=1000).attack(released("dlr_llama"), where)
    name = budget.partition("=")[0]
    spent = {stage: getattr(bill, name) for stage, bill in where.meter.bills.items()}
    assert spent["attack"] >= 0.2 * sum(spent.values())
    assert spent["undo"] > 0
    assert sum(spent.values()) <= getattr(where.meter.budget, name)
