"""Every optimizer by name trains, keeps the state it is billed for, and unknown names are refused."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.errors import Unavailable, UsageError
from harness.optim.curvature import HESSIAN_DIAGONAL
from harness.optim.muon import StackedMuon
from harness.optim.optimizers import OPTIMIZERS, build_optimizer, expected_state_bytes, scale_rates, state_bytes
from harness.train_settings import OPTIMIZER_NAMES, TrainSettings

BY_GRADIENTS = sorted(set(OPTIMIZERS) - {*HESSIAN_DIAGONAL, "lbfgs"})
"""The others step inside an engine: test_curvature.py."""


def _problem() -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.LayerNorm(64), torch.nn.Linear(64, 16))
    return model, torch.randn(32, 16), torch.randn(32, 16)


def _fit(name: str, steps: int) -> tuple[float, float, torch.optim.Optimizer, list[torch.nn.Parameter]]:
    model, x, y = _problem()
    params = list(model.parameters())
    rate = 1.0 if name == "adadelta" else 3e-3  # it finds its own rate; the factor on it is 1
    optimizer = build_optimizer(name, params, TrainSettings(learning_rate=rate))
    losses = []
    for _ in range(steps):
        loss = (model(x) - y).pow(2).mean()
        losses.append(float(loss))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return losses[0], losses[-1], optimizer, params


@pytest.mark.parametrize("name", BY_GRADIENTS)
def test_it_trains_and_its_state_is_as_billed(name: str) -> None:
    first, last, optimizer, params = _fit(name, 30)
    assert last < 0.9 * first
    expected, real = expected_state_bytes(name, params), state_bytes(optimizer)
    # step counters and quantization maps (2 x 256 floats, shared) are the only things not foretold
    assert expected <= real <= expected + 16 * len(params) + (2048 if name == "adamw_8bit" else 0)


@pytest.mark.parametrize("name", ["shampoo", "soap", "psgd_kron"])
def test_a_step_on_a_convolution_costs_no_more_than_its_sides_cubed(name: str) -> None:
    """Multiplied out as they are written, the preconditioners of its four sides take 1.7e8 operations here."""
    p = torch.nn.Parameter(torch.zeros(16, 8, 3, 3))
    optimizer = build_optimizer(name, [p], TrainSettings())
    with FlopCounterMode(display=False) as counter:
        for _ in range(2):
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(0))
            optimizer.step()
    assert counter.get_total_flops() < 2 * 40 * p.numel() * sum(p.shape)


def test_without_a_planner_of_products_psgd_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.backends.opt_einsum.is_available", lambda: False)
    with pytest.raises(Unavailable, match="opt_einsum"):
        build_optimizer("psgd_kron", [torch.nn.Parameter(torch.zeros(2, 2))], TrainSettings())


@pytest.mark.parametrize("name", ["shampoo", "soap", "psgd_kron"])
@pytest.mark.parametrize("shape", [(50, 3), (40, 3), (20, 37), (1, 40), (7,), (2, 3, 4)])
def test_state_of_odd_shapes_is_foretold(name: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.optim.kronecker.BLOCK", 16)
    monkeypatch.setattr("harness.optim.kronecker.WIDEST", 40)
    p = torch.nn.Parameter(torch.zeros(shape))
    optimizer = build_optimizer(name, [p], TrainSettings())
    p.grad = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    assert expected_state_bytes(name, [p]) == pytest.approx(state_bytes(optimizer), abs=16)


@pytest.mark.parametrize("name", ["shampoo", "soap", "psgd_kron"])
def test_ill_conditioning_does_not_stop_them(name: str) -> None:
    """The claim they are here for: a quadratic of condition number 10^8, rotated so that no diagonal helps."""
    losses = {}
    for optim in ("adamw_torch", name):
        torch.manual_seed(0)
        left, right = (torch.linalg.qr(torch.randn(12, 12))[0] * torch.logspace(0, -2, 12) for _ in range(2))
        target = torch.randn(12, 12)
        p = torch.nn.Parameter(torch.zeros(12, 12))
        optimizer = build_optimizer(optim, [p], TrainSettings(learning_rate=0.05))
        for step in range(400):
            optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 400)
            loss = (left.T @ (p - target) @ right).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses[optim] = float(loss)
    assert losses[name] < 0.5 * losses["adamw_torch"]


@pytest.mark.parametrize("name", ["soap", "lbfgs"])
def test_what_cannot_be_resumed_says_so(name: str) -> None:
    with pytest.raises(UsageError, match=rf"save_steps=5: optim={name} cannot be resumed, set save_steps=0"):
        build_optimizer(name, [], TrainSettings(save_steps=5))


@pytest.mark.parametrize("name", ["shampoo", "soap", "psgd_kron", "sophia", "adahessian"])
def test_without_the_library_it_is_unavailable_with_a_reason(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.optim.kronecker.importlib.util.find_spec", lambda module: None)
    with pytest.raises(Unavailable, match=rf"optim={name} needs pytorch-optimizer \(pip install .lockbench\[optim\]"):
        build_optimizer(name, [torch.nn.Parameter(torch.zeros(2, 2))], TrainSettings())


def test_8bit_state_of_a_tiny_matrix_is_really_8_bit() -> None:
    *_, optimizer, params = _fit("adamw_8bit", 1)
    kinds = {optimizer.state[p]["state1"].dtype for p in params if p.ndim == 2}
    assert kinds == {torch.uint8}


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_stacked_muon_is_torchs_muon(decay: float) -> None:
    shapes = [(6, 20), (6, 20), (20, 6), (6, 20), (8, 8)]
    ours, theirs = ([torch.nn.Parameter(torch.ones(shape)) for shape in shapes] for _ in range(2))
    options = {"lr": 0.02, "weight_decay": decay}
    pair = (StackedMuon(ours, **options), torch.optim.Muon(theirs, adjust_lr_fn="match_rms_adamw", **options))
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        for optimizer in pair:
            optimizer.step()
    for a, b in zip(ours, theirs, strict=True):  # torch's iterates in bfloat16, so up to its 3 digits of the way gone
        assert float((a - b).norm()) < 0.02 * float((b - 1).norm())


def test_muon_takes_the_matrices_and_adamw_the_rest() -> None:
    *_, optimizer, params = _fit("muon", 1)
    for p in params:
        assert ("momentum_buffer" in optimizer.state[p]) == (p.ndim == 2)
        assert ("exp_avg" in optimizer.state[p]) == (p.ndim != 2)


@pytest.mark.parametrize("name", BY_GRADIENTS)
def test_rates_of_single_tensors_are_scaled_and_the_others_are_not(name: str) -> None:
    found = {}
    for scale in (1.0, 1e-2):
        model, x, y = _problem()
        params = list(model.parameters())
        before = [p.detach().clone() for p in params]
        optimizer = build_optimizer(name, params, TrainSettings(learning_rate=3e-3))
        scale_rates(optimizer, {params[0]: scale, params[1]: scale} if scale < 1 else {})
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * group["lr_scale"]
        (model(x) - y).pow(2).mean().backward()
        optimizer.step()
        assert sum(len(group["params"]) for group in optimizer.param_groups) == len(params)
        found[scale] = [(p - old).detach() for p, old in zip(params, before, strict=True)]
    for index, (full, scaled) in enumerate(zip(found[1.0], found[1e-2], strict=True)):
        factor = 1e-2 if index < 2 else 1.0
        assert float(scaled.norm()) == pytest.approx(factor * float(full.norm()), rel=0.05)


def test_unknown_name_lists_the_allowed() -> None:
    with pytest.raises(UsageError, match=r"unknown optim 'adamw_torhc'. Did you mean 'adamw_torch'.*adafactor"):
        build_optimizer("adamw_torhc", [], TrainSettings())


def test_the_names_known_without_torch_are_those_that_can_be_built() -> None:
    assert tuple(OPTIMIZERS) == OPTIMIZER_NAMES
    with pytest.raises(UsageError, match=r"attack.optim='adam': .*allowed: adamw_torch, "):
        TrainSettings.parse({"optim": "adam"}, "attack")


def test_muon_over_large_matrices_goes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.optim import muon

    def moved(at_once: int) -> list[torch.Tensor]:
        monkeypatch.setattr(muon, "STACKED", at_once)
        torch.manual_seed(0)
        params = [torch.nn.Parameter(torch.randn(6, 4)) for _ in range(5)]
        optimizer = muon.StackedMuon(params, lr=0.1, weight_decay=0.01)
        for p in params:
            p.grad = torch.randn_like(p)
        optimizer.step()
        return [p.detach() for p in params]

    whole, pieces, single = moved(2**25), moved(50), moved(1)
    torch.testing.assert_close(pieces, whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(single, whole, rtol=1e-5, atol=1e-6)
