"""The loop: it trains, repeats bit for bit, obeys every limit of the budget, and proves what it did."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from training_cases import SETTINGS, batches, context, run, same, weights

from harness.errors import OutOfMemory, OverBudget, UsageError
from harness.testing import random_llama
from harness.training import TrainSettings, train


def test_it_trains_and_proves_it(tmp_path: Path) -> None:
    model, result, meter = run(tmp_path)
    assert result.losses[-1] < result.losses[0] - 0.1
    assert result.steps == 8 == len(result.losses) == meter.total.steps
    assert list(result.trained) == [name for name, _ in model.named_parameters()]
    assert not result.unmoved
    assert not result.missing_gradients
    assert not result.nonfinite_gradients
    assert result.stopped_by == "max_steps"
    assert meter.total.tokens == 8 * 4 * 32
    assert meter.total.trainable_parameters == sum(p.numel() for p in model.parameters())
    assert meter.total.gradient_bytes == 4 * meter.total.trainable_parameters
    assert 0 <= meter.total.optimizer_bytes - 8 * meter.total.trainable_parameters <= 4 * len(result.trained)
    assert meter.total.seconds > 0
    assert all(p.grad is None for p in model.parameters())
    assert not model.training  # left as it came


def test_the_same_call_twice_gives_the_same_bits(tmp_path: Path) -> None:
    def dropout(model: Any) -> None:
        for layer in model.model.layers:
            layer.self_attn.attention_dropout = 0.1

    models = []
    for noise in (1, 2):
        torch.manual_seed(noise)  # what happened before must not matter
        model = random_llama()
        dropout(model)
        torch.rand(noise)
        train(model, batches(), SETTINGS, context(tmp_path))
        models.append(model)
    assert same(*models)
    other = random_llama()
    dropout(other)
    train(other, batches(), SETTINGS, context(tmp_path, seed=1))
    assert not same(models[0], other)


def test_training_leaves_no_trace_in_the_process(tmp_path: Path) -> None:
    model = random_llama()
    torch.manual_seed(3)
    random.seed(3)
    before = torch.get_rng_state(), random.getstate(), torch.get_deterministic_debug_mode()
    train(model, batches(), SETTINGS, context(tmp_path))
    after = torch.get_rng_state(), random.getstate(), torch.get_deterministic_debug_mode()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_trajectory_is_evenly_spaced_with_cumulative_costs(tmp_path: Path) -> None:
    modes: list[bool] = []

    def probe(model: Any) -> float:
        modes.append(model.training)
        torch.rand(5)  # a probe that draws must not disturb training
        return float(len(modes))

    _, result, meter = run(tmp_path, probe=probe)
    assert [point.step for point in result.trajectory] == [0, 2, 4, 6, 8]
    assert modes == [False] * 5
    assert [point.tokens for point in result.trajectory] == [0, 256, 512, 768, 1024]
    assert result.trajectory[-1].flops == meter.total.flops == 4 * result.trajectory[1].flops
    plain, *_ = run(tmp_path)
    probed, *_ = run(tmp_path, probe=probe)
    assert same(plain, probed)


def test_probing_is_on_nobodys_bill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def probe(_: Any) -> float:
        now[0] += 100.0
        return 0.0

    def progress(*_: Any) -> None:
        now[0] += 1.0

    ctx = context(tmp_path, progress=progress)
    train(random_llama(), batches(), SETTINGS, ctx, probe=probe)
    assert ctx.meter.total.seconds == 8.0


@pytest.mark.parametrize(("budget", "steps", "by"), [
    ("steps=3", 3, "steps"), ("tokens=400", 3, "tokens"), ("flops=1e30", 8, "max_steps"), ("steps=50", 8, "max_steps"),
])  # fmt: skip
def test_budget_cuts_the_plan(tmp_path: Path, budget: str, steps: int, by: str) -> None:
    *_, result, meter = run(tmp_path, budget=budget)
    assert (result.steps, result.stopped_by) == (steps, by)
    meter.check()


def test_a_shorter_budget_shortens_the_schedule_too(tmp_path: Path) -> None:
    """Three steps by any limit, the FLOPs known only after the first pass included, are the same three steps."""
    *_, meter = run(tmp_path)
    flops = meter.total.flops / 8
    models = [run(tmp_path, SETTINGS.model_copy(update={"max_steps": 3}))[0]]
    for budget in ("steps=3", "tokens=511", f"flops={3.5 * flops}"):
        model, result, _ = run(tmp_path, budget=budget)
        assert result.steps == 3
        models.append(model)
    assert all(same(models[0], model) for model in models[1:])


@pytest.mark.parametrize("budget", ["tokens=127", "flops=1e6"])
def test_a_budget_without_a_step_is_over_budget(tmp_path: Path, budget: str) -> None:
    with pytest.raises(OverBudget, match="does not allow a single step"):
        run(tmp_path, budget=budget)


def test_other_stages_have_spent_the_budget(tmp_path: Path) -> None:
    ctx = context(tmp_path, "steps=5")
    with ctx.meter.stage("search"):
        four = SETTINGS.model_copy(update={"max_steps": 4})
        assert train(random_llama(), batches(), four, ctx).stopped_by == "max_steps"
    with ctx.meter.stage("attack"):
        assert train(random_llama(), batches(), SETTINGS, ctx).steps == 1
        with pytest.raises(OverBudget):
            train(random_llama(), batches(), SETTINGS, ctx)
    assert {stage: bill.steps for stage, bill in ctx.meter.bills.items()} == {"search": 4, "attack": 1}


def test_seconds_stop_between_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def progress(*_: Any) -> None:
        now[0] += 1.0

    ctx = context(tmp_path, "seconds=2.5", progress=progress)
    result = train(random_llama(), batches(), SETTINGS, ctx, probe=lambda _: 1.0)
    assert (result.steps, result.stopped_by) == (3, "seconds")
    assert [point.step for point in result.trajectory] == [0, 2, 3]  # the end is scored wherever it is
    with pytest.raises(OverBudget):
        train(random_llama(), batches(), SETTINGS, ctx)


def test_stop_ends_training(tmp_path: Path) -> None:
    *_, result, _ = run(tmp_path, stop=lambda step: step == 5)
    assert (result.steps, result.stopped_by) == (5, "stop")


def test_memory_over_budget_is_raised_before_the_first_update(tmp_path: Path) -> None:
    *_, meter = run(tmp_path)
    need = meter.total.peak_device_bytes
    assert need is not None
    *_, result, _ = run(tmp_path, budget=f"memory={need}")
    assert result.steps == 8
    model, ctx = random_llama(), context(tmp_path, f"memory={need - 100}")
    before = weights(model)
    with pytest.raises(OutOfMemory, match=r"budget\.memory"):
        train(model, batches(), SETTINGS, ctx)
    assert all(torch.equal(before[name], value) for name, value in weights(model).items())
    assert ctx.meter.total.steps == 0
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("error", [
    torch.OutOfMemoryError("CUDA out of memory"), MemoryError(),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
])  # fmt: skip
def test_a_real_out_of_memory_is_an_outcome(tmp_path: Path, error: Exception) -> None:
    def loss_fn(*_: Any) -> torch.Tensor:
        raise error

    with pytest.raises(OutOfMemory):
        run(tmp_path, loss_fn=loss_fn)


def test_the_allocator_really_refusing_is_an_outcome(tmp_path: Path) -> None:
    def loss_fn(model: Any, batch: Any) -> torch.Tensor:
        return torch.empty(2**60, dtype=torch.uint8).float().mean()

    with pytest.raises(OutOfMemory, match="the machine"):
        run(tmp_path, loss_fn=loss_fn)


def test_other_errors_pass_unchanged(tmp_path: Path) -> None:
    def loss_fn(*_: Any) -> torch.Tensor:
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        run(tmp_path, loss_fn=loss_fn)


def test_frozen_tensors_stay_and_are_not_listed(tmp_path: Path) -> None:
    model = random_llama()
    model.model.embed_tokens.requires_grad_(False)
    before = model.model.embed_tokens.weight.detach().clone()
    result = train(model, batches(), SETTINGS, context(tmp_path))
    assert torch.equal(before, model.model.embed_tokens.weight)
    assert "model.embed_tokens.weight" not in result.trained


def test_unmoved_and_missing_gradients_are_reported(tmp_path: Path) -> None:
    model = random_llama()
    model.unused = torch.nn.Parameter(torch.ones(3))
    result = train(model, batches(), SETTINGS, context(tmp_path))
    assert list(result.unmoved) == ["unused"]
    assert list(result.missing_gradients) == ["unused"]


def test_a_step_with_a_nonfinite_gradient_is_recorded_and_not_taken(tmp_path: Path) -> None:
    calls = [0]

    def loss_fn(model: Any, batch: Any) -> torch.Tensor:
        calls[0] += 1
        loss: torch.Tensor = model(**batch).loss
        if calls[0] == 3:
            loss = loss + (model.lm_head.weight[0, 0] - model.lm_head.weight[0, 0].detach()).sqrt()  # gradient inf
        return loss

    model, result, _ = run(tmp_path, loss_fn=loss_fn)
    assert list(result.nonfinite_gradients) == ["lm_head.weight"]
    assert result.steps == len(result.losses) == 8
    assert result.extra["skipped_steps"] == 1
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_huge_but_finite_gradients_are_clipped_not_skipped(tmp_path: Path) -> None:
    def loss_fn(model: Any, batch: Any) -> torch.Tensor:
        loss: torch.Tensor = model(**batch).loss
        return loss * 1e25

    _, result, _ = run(tmp_path, loss_fn=loss_fn)
    assert not result.nonfinite_gradients
    assert not result.unmoved
    assert result.losses[-1] < result.losses[0]


def test_half_precision_weights_are_trained_in_fp32(tmp_path: Path) -> None:
    for bf16 in (False, True):
        model = random_llama().to(torch.bfloat16)
        settings = SETTINGS.model_copy(update={"learning_rate": 1e-4})
        result = train(model, batches(), settings, context(tmp_path, bf16=bf16))
        assert not result.unmoved
        assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_nothing_to_train_is_a_usage_error(tmp_path: Path) -> None:
    model = random_llama().requires_grad_(False)
    with pytest.raises(UsageError, match="nothing to train"):
        train(model, batches(), SETTINGS, context(tmp_path))


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant", "constant_with_warmup"])
def test_schedule_is_that_of_transformers(kind: Any) -> None:
    from transformers import get_scheduler

    from harness.loop.schedule import learning_rates, warmup_steps

    settings = TrainSettings(lr_scheduler_type=kind, learning_rate=0.5, warmup_ratio=0.1)
    rates = learning_rates(settings, 30)
    assert warmup_steps(30, 0.1) == 3
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.5)
    scheduler = get_scheduler(kind, optimizer, 3, 30)
    for rate in rates:
        assert rate == optimizer.param_groups[0]["lr"]
        optimizer.step()
        scheduler.step()


def test_warm_up_never_eats_all_steps() -> None:
    from harness.loop.schedule import learning_rates

    for steps in range(1, 6):
        assert max(learning_rates(TrainSettings(warmup_ratio=0.99), steps)) > 0


def test_eval_points_are_at_most_steps() -> None:
    from harness.loop.schedule import eval_steps

    for steps in range(1, 40):
        for points in range(1, 12):
            found = eval_steps(steps, points)
            assert {0, steps} <= found
            assert len(found) <= points + 1
    assert eval_steps(10, 0) == set()


def test_expected_rates_of_a_short_cosine() -> None:
    from harness.loop.schedule import learning_rates

    rates = learning_rates(TrainSettings(learning_rate=1.0, warmup_ratio=0.0), 4)
    assert rates == pytest.approx([0.5 * (1 + math.cos(math.pi * step / 4)) for step in range(4)])




def test_a_tensor_may_have_a_rate_of_its_own(tmp_path: Path) -> None:
    name, other = "model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight"
    start = weights(random_llama())
    one = TrainSettings(max_steps=1, warmup_ratio=0, learning_rate=1e-3, per_device_train_batch_size=4, block_size=32)
    plain, scaled = (weights(run(tmp_path, one, lr_scale=scale)[0]) for scale in (None, {name: 0.01}))
    assert torch.equal(plain[other], scaled[other])
    moved = float((scaled[name] - start[name]).norm() / (plain[name] - start[name]).norm())
    assert moved == pytest.approx(0.01, rel=1e-2)


def test_rates_for_tensors_that_do_not_train_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"lr_scale: \['nothing'\] are not trained"):
        run(tmp_path, lr_scale={"nothing": 0.5})
    with pytest.raises(UsageError, match="lr_scale with DeepSpeed"):
        run(tmp_path, lr_scale={"model.norm.weight": 0.5}, deepspeed={})
