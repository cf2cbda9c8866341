"""Fine-tuning by forward passes alone: the slope is the gradient's, and nothing is kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from attack_cases import build, context, lock_like_dlr, released

from harness.models.digest import weights_digest
from harness.optim.zeroth_order import ZerothOrder
from harness.testing import random_llama
from harness.train_settings import TrainSettings
from harness.training import causal_lm_loss, train


def test_the_steps_average_to_the_gradient() -> None:
    """The mean of z (z . g) over standard normal z is g; here g = (1, 2, 3), whatever the weights are."""
    model = torch.nn.Linear(3, 1, bias=False)
    before = model.weight.detach().clone()
    batch, once = {"x": torch.tensor([[1.0, 2.0, 3.0]])}, TrainSettings(learning_rate=1.0, max_steps=1, warmup_ratio=0)
    train(model, lambda step, micro: batch, once, context(), loss_fn=lambda m, batch: m(batch["x"]).sum(),
          zeroth_order=ZerothOrder(directions=2000))  # fmt: skip
    assert (before - model.weight.detach())[0].tolist() == pytest.approx([1, 2, 3], abs=0.4)


def test_nothing_is_kept_and_a_deeper_lock_costs_nothing() -> None:
    peaks = []
    for depth in (2, 16):
        where = context()
        build("mezo", max_steps=2).attack(released(lock_like_dlr(random_llama(), depth)), where)
        bill = where.meter.bills["attack"]
        assert (bill.kept_for_backward_bytes, bill.gradient_bytes, bill.optimizer_bytes) == (0, 0, 0)
        assert bill.backward_flops == 0 < bill.forward_flops
        peaks.append(bill.peak_device_bytes)
    assert peaks[1] == pytest.approx(peaks[0], rel=0.05)


def test_forward_passes_are_on_the_bill() -> None:
    flops = []
    for directions in (1, 3):
        where = context()
        build("mezo", max_steps=2, directions=directions).attack(released("llama"), where)
        flops.append(where.meter.bills["attack"].forward_flops)
    assert flops[1] == 3 * flops[0]


def test_a_killed_run_goes_on_along_the_same_directions(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def progress(label: str, done: int, total: int) -> None:
        if done == 5:
            raise Killed

    straight = build("mezo", max_steps=8).attack(released("llama"), context()).model
    where = dataclasses.replace(context(tmp_path), progress=progress)
    with pytest.raises(Killed):
        build("mezo", max_steps=8, save_steps=2).attack(released("llama"), where)
    resumed = build("mezo", max_steps=8, save_steps=2).attack(released("llama"), context(tmp_path)).model
    assert weights_digest(resumed) == weights_digest(straight)


def test_accumulated_micro_batches_share_their_direction() -> None:
    def losses(size: int, parts: int) -> list[float]:
        settings = {"per_device_train_batch_size": size, "gradient_accumulation_steps": parts, "max_steps": 6}
        return list(build("mezo", **settings).attack(released("llama"), context()).training.losses)

    assert losses(4, 2) == pytest.approx(losses(8, 1), rel=1e-4)


def test_a_loss_that_is_not_finite_moves_nothing_and_is_told() -> None:
    model = torch.nn.Linear(3, 1)
    before = model.weight.detach().clone()
    result = train(model, lambda step, micro: {"x": torch.ones(1, 3)},
                   TrainSettings(max_steps=3, eval_points=0), context(), zeroth_order=ZerothOrder(),
                   loss_fn=lambda m, batch: m(batch["x"]).sum() * torch.inf)  # fmt: skip
    assert set(result.nonfinite_gradients) == set(result.missing_gradients) == {"weight", "bias"}
    assert result.extra == {"skipped_steps": 3}
    assert torch.allclose(model.weight, before)


def test_slopes_under_bf16_are_those_of_the_weights() -> None:
    """Autocast keeps the bf16 copy of a weight for as long as its region lasts: both points would be one."""
    from harness.optim.zeroth_order import ZerothOrderEngine

    def slopes(bf16: bool) -> list[float]:
        model = random_llama().requires_grad_(False)
        named = [(name, p.requires_grad_(True)) for name, p in model.named_parameters() if "_proj" in name]
        where = dataclasses.replace(context(), bf16=bf16)
        how = ZerothOrder(directions=4, perturbation=3e-2)
        engine = ZerothOrderEngine(model, named, TrainSettings(learning_rate=1e-3), where, causal_lm_loss, how)
        torch.manual_seed(0)
        ids = torch.arange(3, 67).view(2, 32)
        engine.forward({"input_ids": ids, "labels": ids})
        return engine._slopes

    exact, rounded = torch.tensor(slopes(False)), torch.tensor(slopes(True))
    assert exact.abs().min() > 0
    assert float((rounded - exact).norm() / exact.norm()) < 0.3
