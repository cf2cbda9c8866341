"""Re-distillation takes the lock out, with forward passes only, on its own bill."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from attack_cases import build, context, lock_like_dlr, released

from harness.models.digest import weights_digest
from harness.testing import random_llama


@pytest.mark.parametrize("model", ["dlr_llama", "dlr_gpt2"])
def test_every_net_is_replaced_by_a_closer_and_closer_shallow_mlp(model: str) -> None:
    where = context()
    result = build("redistill", undo_steps=60).attack(released(model), where)
    kinds = {type(module).__name__ for module in result.model.modules()}
    assert "DLRNet" not in kinds
    assert "SwiGLU" in kinds
    assert result.report["replaced"] == [f"{'transformer.h' if 'gpt2' in model else 'model.layers'}.{index}.mlp"
                                         for index in range(2)]  # fmt: skip
    assert all(end < start < 1 for start, end in zip(result.report["error_start"], result.report["error"], strict=True))
    undo = where.meter.bills["undo"]
    assert undo.steps == 60
    assert undo.tokens >= 60 * 8 * 32
    assert undo.forward_flops > undo.backward_flops > 0
    assert where.meter.bills["attack"].steps == 12


def sliced(depth: int) -> Any:
    """A lock that starts from slices of the MLPs, as `init=partition` makes it before it trains."""
    from defenses.dlr import DLRSettings
    from defenses.dlr.build import Swap, describe
    from defenses.dlr.initial import partition_init

    model = random_llama()
    swap = Swap(model, describe(model, DLRSettings(depth=depth, init="partition", norm="none")))
    for net, site in zip(swap.nets, swap.sites, strict=True):
        net.gain.fill_(2.0**-6)
        partition_init(net, site.module)
    swap.locked()
    return model.eval()


def test_slices_of_an_mlp_are_put_together_again() -> None:
    """Random gates of a closed form know nothing of them."""
    errors = []
    for model in (sliced(4), lock_like_dlr(random_llama(), 4)):
        result = build("redistill", undo_steps=0, max_steps=1, sampled_tokens=0).attack(released(model), context())
        errors.append(max(result.report["error"]))
    assert errors[0] < 0.02 < errors[1]


def test_training_that_makes_it_worse_is_not_kept() -> None:
    where = build("redistill", undo_steps=4, undo_learning_rate=50.0, max_steps=1, sampled_tokens=0)
    result = where.attack(released("dlr_llama"), context())
    assert all(end <= start for start, end in zip(result.report["error_start"], result.report["error"], strict=True))


def test_nothing_is_differentiated_through_a_net(monkeypatch: pytest.MonkeyPatch) -> None:
    from defenses.dlr.modeling_dlr import DLRNet

    modes: list[bool] = []
    real = DLRNet.forward

    def forward(self: Any, x: torch.Tensor, *rest: Any, **named: Any) -> Any:
        modes.append(torch.is_grad_enabled())
        return real(self, x, *rest, **named)

    monkeypatch.setattr(DLRNet, "forward", forward)
    build("redistill", undo_steps=3, polish_steps=2, max_steps=1, sampled_tokens=100).attack(
        released("dlr_llama"), context())  # fmt: skip
    assert len(modes) > 10
    assert not any(modes)


def test_depth_costs_the_fitting_no_memory() -> None:
    kept = []
    for depth in (2, 16):
        where = context()
        build("redistill", undo_steps=2, max_steps=1).attack(released(lock_like_dlr(random_llama(), depth)), where)
        kept.append(where.meter.bills["undo"].peak_backward_bytes)
    assert kept[1] == pytest.approx(kept[0], rel=0.01)


def test_sampled_text_is_used_and_paid_for() -> None:
    bills, tokens = [], []
    for sampled in (0, 5000):
        where = context()
        result = build("redistill", undo_steps=2, max_steps=1, sampled_tokens=sampled).attack(
            released("dlr_llama"), where)  # fmt: skip
        bills.append(where.meter.bills["undo"])
        tokens.append(result.report["tokens"])
    assert tokens[1] - tokens[0] == 5024  # one round of 157 sequences of 32 tokens
    assert bills[1].tokens - bills[0].tokens >= 5024
    assert bills[1].forward_flops > bills[0].forward_flops


def test_the_polish_brings_the_model_closer_to_the_locked_one() -> None:
    ids = torch.arange(3, 131).view(4, 32)
    target = released("dlr_llama").model(input_ids=ids).logits.log_softmax(-1)

    def distance(steps: int) -> float:
        # One step at such a rate leaves the undone model as it is.
        result = build("redistill", undo_steps=5, polish_steps=steps, max_steps=1, learning_rate=1e-9).attack(
            released("dlr_llama"), context())  # fmt: skip
        logits = result.model(input_ids=ids).logits.log_softmax(-1)
        return float(torch.nn.functional.kl_div(logits, target, log_target=True, reduction="batchmean"))

    assert distance(40) < distance(0)


@pytest.mark.parametrize("model", ["llama", "gpt2"])
def test_without_a_lock_it_is_full_fine_tuning(model: str) -> None:
    where = context()
    plain = build("full").attack(released(model), context()).model
    undone = build("redistill").attack(released(model), where)
    assert weights_digest(undone.model) == weights_digest(plain)
    assert undone.report == {"replaced": []}
    assert set(where.meter.bills) == {"attack"}


@pytest.mark.parametrize("budget", ["steps=10", "tokens=6000", "flops=4e8"])
def test_the_undoing_leaves_half_of_any_budget_to_the_fine_tuning(budget: str) -> None:
    where = context(budget=budget)
    result = build("redistill", undo_steps=1000, max_steps=1000).attack(released("dlr_llama"), where)
    name = budget.partition("=")[0]
    spent = {stage: getattr(bill, name) for stage, bill in where.meter.bills.items()}
    assert result.training.steps >= 1
    assert spent["attack"] >= 0.2 * sum(spent.values())
    assert sum(spent.values()) <= getattr(where.meter.budget, name)
