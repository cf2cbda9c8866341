"""Walking a deep net back from its output: the same gradients, no bytes by depth, and an honest way out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from attack_cases import build, context, lock_like_dlr, released

from attacks.reversible import Inversions, invert, most_flops, reversed_stacks
from defenses.dlr.modeling_dlr import DLRNet
from harness.testing import random_llama


def net(depth: int = 6, *, steep: float = 1.0) -> DLRNet:
    torch.manual_seed(0)
    made = DLRNet(16, [4] * depth, bias=True)
    with torch.no_grad():
        for block in made.blocks:
            block.expand.weight.mul_(steep)
    return made


def gradients(stack: DLRNet, x: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(stack(x).pow(3).sum(), [x, *stack.parameters()]))


@pytest.mark.parametrize("steep", [0.5, 1.0, 20.0])
def test_gradients_are_exact_whether_or_not_the_blocks_contract(steep: float) -> None:
    stack, x, how = net(steep=steep), torch.randn(8, 16, requires_grad=True), Inversions(tolerance=1e-4, most=30)
    plain = gradients(stack, x)
    with reversed_stacks([stack], how):
        ours = gradients(stack, x)
    for a, b in zip(plain, ours, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(a.abs().max()))
    assert (how.stacks, how.fallbacks) == (1, int(steep > 1))
    if steep <= 1:
        assert how.error <= 1e-4
    assert "run_blocks" not in vars(stack)


def test_an_inverse_is_the_inverse() -> None:
    block, how = net().blocks[0], Inversions(tolerance=1e-4, most=60)
    h = torch.randn(8, 16)
    found = invert(block, block(h).detach(), how)
    assert found is not None
    torch.testing.assert_close(found, h, rtol=1e-4, atol=1e-5)
    assert how.iterations > 2


def test_a_tolerance_that_nothing_meets_means_recomputing() -> None:
    stack, x = net(), torch.randn(8, 16, requires_grad=True)
    plain = gradients(stack, x)
    for how in (Inversions(tolerance=1e-12, most=30), Inversions(tolerance=1e-4, most=1)):
        with reversed_stacks([stack], how):
            ours = gradients(stack, x)
        assert how.fallbacks == 1
        for a, b in zip(plain, ours, strict=True):
            torch.testing.assert_close(a, b)


def attacked(depth: int, **settings: Any) -> tuple[Any, Any]:
    where = context(budget=settings.pop("budget", ""))
    model = lock_like_dlr(random_llama(vocab_size=260, num_hidden_layers=1), depth=depth)
    settings = {"max_steps": 3, "gradient_checkpointing": False} | settings
    result = build("checkpointing", **settings).attack(released(model), where)
    return result, where.meter.bills["attack"]


def test_bytes_do_not_grow_with_depth_and_the_trajectory_is_that_of_full() -> None:
    bills = {}
    for depth in (8, 32):
        again, bills[depth] = attacked(depth, kind="reversible")
        pieces, in_pieces = attacked(depth)
        assert again.training.losses == pytest.approx(pieces.training.losses, rel=1e-5)
        assert again.report["reversible"]["fallbacks"] == 0
        assert again.report["reversible"]["stacks"] == 3
        assert bills[depth].peak_backward_bytes < in_pieces.peak_backward_bytes
        assert bills[depth].flops > 1.3 * in_pieces.flops  # the price
    assert bills[8].kept_for_backward_bytes == bills[32].kept_for_backward_bytes
    assert bills[8].peak_backward_bytes == bills[32].peak_backward_bytes


def test_every_iteration_is_on_the_bill_and_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """By counting the calls of the blocks: two products of a matrix and the rows each, 4 sequences of 32 tokens."""
    from defenses.dlr.modeling_dlr import DLRBlock

    calls: list[int] = []
    forward = DLRBlock.forward
    monkeypatch.setattr(DLRBlock, "forward", lambda self, h: (calls.append(sum(
        2 * h.shape[0] * h.shape[1] * p.numel() for p in self.parameters())), forward(self, h))[1])  # fmt: skip
    costs = []
    for settings in ({"kind": "reversible"}, {"kind": "reversible", "iterations": 2}):
        calls.clear()
        result, bill = attacked(8, **settings)
        costs.append(bill.flops - sum(calls))
        assert result.report["reversible"]["fallbacks"] == (3 if "iterations" in settings else 0)
    assert costs[0] == costs[1]  # all that is not a block's forward pass costs the same, whatever the walk does

    _, bill = attacked(8, kind="reversible", max_steps=1)
    limit = 30 * bill.flops
    result, spent = attacked(8, kind="reversible", max_steps=100, budget=f"flops={limit}")
    assert spent.flops <= limit
    assert result.training.stopped_by == "flops"
    model = lock_like_dlr(random_llama(vocab_size=260, num_hidden_layers=1), depth=8)
    spare = most_flops([model.model.layers[0].mlp], 4 * 32, Inversions(tolerance=1e-4, most=30))
    assert 1 < result.training.steps < 30
    assert spent.flops + spare + bill.flops > limit * 0.8  # and no more is left unused than a step may need


def test_nothing_to_walk_back_is_full_fine_tuning() -> None:
    results = [build(name, **settings).attack(released("llama"), context()).training.losses
               for name, settings in (("full", {}), ("checkpointing", {"kind": "reversible"}))]  # fmt: skip
    assert results[1] == pytest.approx(results[0], rel=1e-5)
