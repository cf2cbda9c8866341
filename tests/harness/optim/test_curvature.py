"""Sophia, AdaHessian and L-BFGS: what they see of the curvature, what it costs, and that ill-conditioning is no bar."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_cases import SETTINGS, batches, context, run, same

from harness.budget import Budget
from harness.errors import OverBudget, UsageError
from harness.loop.engine import Batch, plain_engine
from harness.meters.memory import LiveStorages
from harness.meters.meter import Meter
from harness.optim.curvature import HISTORY, UNIT
from harness.optim.line_search import SEARCH, LineSearchEngine
from harness.optim.optimizers import expected_state_bytes, state_bytes
from harness.optim.second_order import SecondOrderEngine
from harness.testing import random_llama
from harness.theory.quadratic import hessian_of_features
from harness.training import TrainResult, TrainSettings, train

NAMES = ("sophia", "adahessian", "lbfgs")
KNOBS = TrainSettings(max_steps=200, warmup_ratio=0, eval_points=0, max_grad_norm=0)
BATCH = {"x": torch.zeros(1, 1)}


class Quadratic(torch.nn.Module):
    """e' H e / 2, from e = 1."""

    def __init__(self, hessian: Any) -> None:
        super().__init__()
        self.hessian = torch.as_tensor(hessian, dtype=torch.float32)
        self.error = torch.nn.Parameter(torch.ones(len(hessian)))


def energy(model: Any, _: Batch) -> torch.Tensor:
    return model.error @ model.hessian @ model.error / 2


def engine(optim: str, model: torch.nn.Module, folder: Path, loss_fn: Any, **knobs: Any) -> Any:
    named = list(model.named_parameters())
    chosen = KNOBS.model_copy(update={"optim": optim, **knobs})
    return plain_engine(optim)(model, named, chosen, context(folder), loss_fn, {})


# Ill-conditioning


@functools.cache
def solved(optim: str, rate: float, rotated: bool) -> float:
    """Loss over the loss at the start after 200 steps on a quadratic of condition number about 10^6."""
    rng = np.random.default_rng(0)
    if rotated:
        hessian = hessian_of_features(np.logspace(0, -6, 20), rng)
    else:  # correlated, and badly scaled along the coordinates
        scale = np.logspace(0, -3, 20)
        hessian = scale[:, None] * hessian_of_features(np.linspace(1, 3, 20), rng) * scale
    rate = rate / float(np.linalg.eigvalsh(hessian)[-1]) if optim == "sgd" else rate
    model = Quadratic(hessian)
    found = train(model, lambda step, micro: BATCH, KNOBS.model_copy(update={"optim": optim, "learning_rate": rate}),
                  context(Path("unused")), loss_fn=energy)  # fmt: skip
    return float(energy(model, BATCH).detach()) / found.losses[0]


@pytest.mark.parametrize(("optim", "rate", "rotated"), [
    ("sophia", 0.1, False), ("adahessian", 0.03, False), ("lbfgs", 3e-3, False), ("lbfgs", 3e-3, True),
])  # fmt: skip
def test_it_solves_what_sgd_does_not(optim: str, rate: float, rotated: bool) -> None:
    """The two that know the diagonal need bad scaling along the coordinates; L-BFGS takes any rotation."""
    assert min(solved("sgd", of_largest, rotated) for of_largest in (1.0, 3.0)) > 1e-4  # 3.8 is the edge of stability
    assert solved(optim, rate, rotated) < 1e-5


# Hutchinson's probe


def test_the_estimate_of_a_diagonal_hessian_is_exact(tmp_path: Path) -> None:
    values = torch.tensor([4.0, 1.0, 0.25])
    model = Quadratic(torch.diag(values))
    probe = engine("adahessian", model, tmp_path, energy, gradient_accumulation_steps=2)
    for _ in range(2):
        probe.backward(probe.forward(BATCH))
    assert torch.equal(model.error.grad, values)
    assert torch.equal(probe._diagonal[model.error], values)
    assert probe.update(1e-3)
    assert torch.equal(probe._diagonal[model.error], torch.zeros(3))


def test_the_estimate_is_unbiased(tmp_path: Path) -> None:
    hessian = torch.tensor([[2.0, 0.5, -1.0], [0.5, 1.0, 0.3], [-1.0, 0.3, 3.0]])
    model = Quadratic(hessian)
    probe = engine("adahessian", model, tmp_path, energy)
    torch.manual_seed(0)
    for _ in range(800):
        probe.backward(probe.forward(BATCH))
    assert torch.allclose(probe._diagonal[model.error] / 800, hessian.diagonal(), atol=0.15)


def test_gradients_are_those_of_the_plain_engine(tmp_path: Path) -> None:
    """Also of tensors that share one gradient, that get a number spread out, or that get none."""

    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.unused = (
                torch.nn.Parameter(torch.full((4,), x)) for x in (0.5, 2.0, 1.0, 3.0)
            )

    def loss(model: Any, _: Batch) -> torch.Tensor:
        return (model.a + model.b).pow(3).sum() + model.c.sum()

    grads = {}
    for optim in ("adamw_torch", "sophia"):
        model = Odd()
        one = engine(optim, model, tmp_path, loss, gradient_accumulation_steps=2)
        for _ in range(2):
            one.backward(one.forward(BATCH))
        one.watch.clip(1.0)  # in place: a shared gradient would be scaled twice
        grads[optim] = {name: p.grad for name, p in model.named_parameters()}
    assert grads["sophia"]["unused"] is None
    for name in "abc":
        torch.testing.assert_close(grads["sophia"][name], grads["adamw_torch"][name])


def test_flops_by_hand(tmp_path: Path) -> None:
    """y = B tanh(A x): what each product of the two passes is needed for, in units of the two forward products."""
    n, i, a, o = 5, 3, 7, 2
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(i, a, bias=False), torch.nn.Tanh(), torch.nn.Linear(a, o, bias=False))
    x = torch.randn(n, i)
    first, last = 2 * n * i * a, 2 * n * a * o
    meter = Meter(Budget())
    where = context(tmp_path)
    where = type(where)(seed=0, device="cpu", folder=tmp_path, meter=meter)
    train(model, lambda step, micro: {"x": x}, KNOBS.model_copy(update={"max_steps": 3, "optim": "sophia"}), where,
          loss_fn=lambda m, batch: m(batch["x"]).pow(2).mean())  # fmt: skip
    assert meter.total.forward_flops == 3 * (first + last)
    gradient = first + 2 * last  # dA, dB, and through B
    # Back through dA = g'x to g; dB = e'h to e and h; g = (e B) tanh' to e and B; y = B h to h and B; h = A x to A.
    again = first + 2 * last + 2 * last + 2 * last + first
    assert meter.total.backward_flops == 3 * (gradient + again)


@pytest.mark.parametrize("optim", ["sophia", "adahessian"])
def test_recomputing_activations_changes_memory_only(tmp_path: Path, optim: str) -> None:
    found: dict[bool, tuple[TrainResult, Meter]] = {}
    for recompute in (False, True):
        knobs = SETTINGS.model_copy(update={"optim": optim, "gradient_checkpointing": recompute})
        found[recompute] = run(tmp_path, knobs)[1:]
    assert found[True][0].losses == pytest.approx(found[False][0].losses, rel=1e-4)
    assert found[True][1].total.kept_for_backward_bytes < 0.8 * found[False][1].total.kept_for_backward_bytes


def test_bf16_and_rates_of_single_tensors(tmp_path: Path) -> None:
    name = "model.norm.weight"
    model = random_llama()
    result = train(model, batches(), SETTINGS.model_copy(update={"optim": "sophia"}), context(tmp_path, bf16=True),
                   lr_scale={name: 0.5})  # fmt: skip
    assert result.losses[-1] < result.losses[0] - 0.1
    assert not result.unmoved


def test_what_cannot_be_differentiated_twice_says_so(tmp_path: Path) -> None:
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x)
            return x**2

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            return 2 * ctx.saved_tensors[0] * grad

    def loss(model: Any, batch: Batch) -> torch.Tensor:
        return Once.apply(model.error).pow(2).sum()

    one = engine("sophia", Quadratic(torch.eye(2)), tmp_path, loss)
    with pytest.raises(UsageError, match=r"optim=sophia: this model cannot be differentiated twice"):
        one.backward(one.forward(BATCH))


def test_an_estimate_that_is_not_finite_skips_the_step_and_names_the_tensor(tmp_path: Path) -> None:
    def loss(model: Any, batch: Batch) -> torch.Tensor:
        return model.error[0].abs() ** 1.5 + model.error[1]  # at 0: slope 0, curvature inf

    model = Quadratic(torch.eye(2))
    with torch.no_grad():
        model.error[0] = 0
    result = train(model, lambda step, micro: BATCH, KNOBS.model_copy(update={"max_steps": 2, "optim": "sophia"}),
                   context(tmp_path), loss_fn=loss)  # fmt: skip
    assert list(result.nonfinite_gradients) == ["error"]
    assert result.extra["skipped_steps"] == 2
    assert not result.missing_gradients


# Memory


@pytest.mark.parametrize("optim", NAMES)
def test_state_is_as_foretold(tmp_path: Path, optim: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engines: list[Any] = []
    kind = LineSearchEngine if optim == "lbfgs" else SecondOrderEngine
    monkeypatch.setattr(kind, "close", lambda self: engines.append(self))
    knobs = SETTINGS.model_copy(update={"optim": optim, "max_steps": 12, "lr_scheduler_type": "constant"})
    model, result, meter = run(tmp_path, knobs)
    assert result.losses[-1] < result.losses[0] - 0.1
    params = list(model.parameters())
    expected, real = expected_state_bytes(optim, params), state_bytes(engines[0].optimizer)
    assert expected <= real <= expected + 16 * max(len(params), HISTORY)
    assert meter.total.optimizer_bytes == pytest.approx(expected, abs=16 * len(params))


def test_a_line_search_holds_no_more_than_is_accounted(tmp_path: Path) -> None:
    """What is born during an update and does not stay as history: the search's vectors, and one evaluation."""
    torch.manual_seed(0)
    model = torch.nn.Linear(300, 300, bias=False)
    x, y = torch.randn(4, 300), torch.randn(4, 300)
    one = engine("lbfgs", model, tmp_path, lambda m, batch: (m(x) - y).pow(4).mean(), learning_rate=1.0)
    size, extra = 4 * 300 * 300, []
    for _ in range(8):
        one.backward(one.forward(BATCH))
        before = state_bytes(one.optimizer)
        with LiveStorages() as live:
            one.update(1.0)
        extra.append(live.peak(0, live.mark()) - max(0, state_bytes(one.optimizer) - before))
    gradient_and_evaluation = 2 * size
    assert (SEARCH - 2) * size < max(extra) <= SEARCH * size + gradient_and_evaluation


# The line search on the bill


def counted(calls: list[int]) -> Any:
    def loss(model: Any, batch: Batch) -> torch.Tensor:
        calls.append(int(batch["input_ids"].sum()))
        found: torch.Tensor = model(**batch, use_cache=False).loss
        return found

    return loss


def test_every_evaluation_is_on_the_bill(tmp_path: Path) -> None:
    *_, plain = run(tmp_path, SETTINGS.model_copy(update={"max_steps": 1, "gradient_accumulation_steps": 2}))
    calls: list[int] = []
    knobs = SETTINGS.model_copy(update={"max_steps": 4, "gradient_accumulation_steps": 2, "optim": "lbfgs"})
    *_, result, meter = run(tmp_path, knobs, loss_fn=counted(calls))
    passes = len(calls) // 2
    assert passes > 2 * result.steps
    assert meter.total.steps == 4
    assert meter.total.tokens == passes * plain.total.tokens
    assert meter.total.flops == passes * plain.total.flops
    assert calls[:2] == calls[2:4]  # the same two batches


@settings(max_examples=12, deadline=None)
@given(name=st.sampled_from(["tokens", "flops"]), passes=st.floats(0.5, 60))
def test_no_budget_is_exceeded(name: str, passes: float) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 4)
    x = torch.randn(8, 4)
    meter = Meter(Budget.parse({name: int(passes * {"tokens": 8, "flops": 4 * 8 * 16}[name]) or 1}, "budget"))
    where = type(context(Path("unused")))(seed=0, device="cpu", folder=Path("unused"), meter=meter)
    knobs = KNOBS.model_copy(update={"optim": "lbfgs", "learning_rate": 3e-3})
    try:
        result = train(model, lambda step, micro: {"x": x}, knobs, where,
                       loss_fn=lambda m, batch: (m(batch["x"]) - 1).pow(4).mean())  # fmt: skip
    except OverBudget:
        assert passes < LineSearchEngine.most_evaluations + 1
    else:
        assert result.stopped_by in (name, "max_steps")
    meter.check()


def test_evaluations_of_a_step_draw_the_same_random_numbers(tmp_path: Path) -> None:
    drawn: list[float] = []

    def loss(model: Any, batch: Batch) -> torch.Tensor:
        drawn.append(float(torch.rand(())))
        return energy(model, batch)

    one = engine("lbfgs", Quadratic(torch.diag(torch.tensor([1.0, 30.0]))), tmp_path, loss, learning_rate=1.0)
    by_step = []
    for _ in range(2):
        one.backward(one.forward(BATCH))
        one.update(3e-3)
        by_step.append(set(drawn))
        assert len(drawn) == one.evaluations > 1
        drawn.clear()
    assert [len(numbers) for numbers in by_step] == [1, 1]
    assert by_step[0] != by_step[1]


def test_a_search_turns_back_where_the_loss_is_not_finite(tmp_path: Path) -> None:
    def loss(model: Any, batch: Batch) -> torch.Tensor:
        return (model.error - 0.5).log().neg().sum() + 3 * model.error.sum()  # nan below 0.5, least at 5 / 6

    model = Quadratic(torch.eye(3))
    result = train(model, lambda step, micro: BATCH, KNOBS.model_copy(
        update={"max_steps": 8, "optim": "lbfgs", "learning_rate": 1.0, "lr_scheduler_type": "constant"}),
        context(tmp_path), loss_fn=loss)  # fmt: skip
    assert not result.nonfinite_gradients
    assert torch.allclose(model.error, torch.full((3,), 5 / 6), atol=1e-3)


def test_what_lbfgs_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"weight_decay=0.1: optim=lbfgs has none, set weight_decay=0"):
        run(tmp_path, SETTINGS.model_copy(update={"optim": "lbfgs", "weight_decay": 0.1}))
    with pytest.raises(UsageError, match=r"lr_scale"):
        run(tmp_path, SETTINGS.model_copy(update={"optim": "lbfgs"}), lr_scale={"model.norm.weight": 0.5})
    for name, value in (("weight_decay", 0.1), ("save_steps", 5)):  # before a lock is made
        with pytest.raises(UsageError, match=rf"attack.{name}={value}: .*optim=lbfgs .*, set {name}=0"):
            TrainSettings.parse({"optim": "lbfgs", name: value}, "attack")


@pytest.mark.parametrize("optim", NAMES)
def test_the_same_call_twice_gives_the_same_bits(tmp_path: Path, optim: str) -> None:
    models = [run(tmp_path, SETTINGS.model_copy(update={"optim": optim, "max_steps": 3}))[0] for _ in range(2)]
    assert same(*models)


def test_adahessian_averages_over_what_feeds_one_output(tmp_path: Path) -> None:
    """A matrix whose rows have curvature 1 and 9: the first step goes by slope over curvature, row by row."""
    model = torch.nn.Linear(3, 2, bias=False)
    torch.nn.init.ones_(model.weight)
    curvature = torch.tensor([[0.0, 1.0, 2.0], [0.0, 9.0, 18.0]])
    one = engine("adahessian", model, tmp_path, lambda m, batch: (curvature * m.weight**2 / 2 + m.weight).sum(),
                 learning_rate=0.01)  # fmt: skip
    one.backward(one.forward(BATCH))
    assert one.update(0.01)
    moved = (1 - model.weight) / 0.01
    expected = UNIT["adahessian"] * (1 + curvature) / torch.tensor([[1.0], [9.0]])
    torch.testing.assert_close(moved, expected, rtol=1e-3, atol=1e-3)
