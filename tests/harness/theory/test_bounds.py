"""Lower bounds against the exact Hessian, their pieces against brute force, and where Theorem 2.1 fails."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from harness.theory.bounds import (
    Bounds,
    best_bounds,
    block_bounds,
    factors,
    index_bound,
    input_side_bound,
    row_gain,
    simple_bound,
    sum_bound,
    values,
)
from harness.theory.hessian import block_of, gauss_newton, hessian, jacobians, largest
from harness.theory.iterations import adam_steps
from harness.theory.networks import Network, chain, cnn, convolve, mixed, mlp, rescaled, transformer

NETWORKS = {network.name: network for network in (mlp(), cnn(), transformer())}
SLACK = 1 + 1e-9
sizes = st.integers(1, 5)


def draw(seed: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def start(network: Network, seed: int = 0, examples: int = 6) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    return (network.init(seed), *network.data(seed + 100, examples))


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_hessian_is_the_difference_of_gradients(network: Network) -> None:
    params, x, y = start(network)
    whole = hessian(network, params, x, y)
    assert torch.allclose(whole, whole.T)
    name = next(reversed(network.shapes))
    block = block_of(network, whole, name)

    def gradient(shift: float) -> Tensor:
        weight = params[name].clone()
        weight[0, 1] += shift
        weight.requires_grad_()
        return torch.autograd.grad(network.loss({**params, name: weight}, x, y), weight)[0].flatten()

    assert torch.allclose((gradient(1e-6) - gradient(-1e-6)) / 2e-6, block[:, 1], atol=1e-6)


def test_the_networks_compute_what_torch_modules_compute() -> None:
    params, x, _ = start(NETWORKS["cnn"])
    conv = nn.Conv1d(4, 4, 3, padding=1, bias=False, dtype=torch.float64)
    with torch.no_grad():  # our columns are ordered by position in the kernel, then channel
        conv.weight.copy_(params["conv2"].view(4, 3, 4).movedim(1, 2))
    signal = draw(0, (6, 16))[0]
    assert torch.allclose(convolve(params["conv2"], signal), conv(signal.view(6, 4, 4)).flatten(1))
    params, x, _ = start(NETWORKS["mlp"])
    layers = [layer for name in params for layer in (nn.Linear(*params[name].T.shape, bias=False), nn.ReLU())][:-1]
    for layer, name in zip(layers[::2], params, strict=True):
        layer.weight = nn.Parameter(params[name])
    assert torch.allclose(NETWORKS["mlp"].forward(params, x), nn.Sequential(*layers)(x))
    params, x, _ = start(NETWORKS["transformer"])
    query, key = (params[name] @ x[0].T for name in "QK")  # the paper's columns are our rows
    expected = x[0].T @ torch.softmax(key.T @ query, dim=0)  # equation 3 without W_O W_V
    assert torch.allclose(mixed(params, x)[0], expected[:, -1])


def test_runs_side_by_side_are_the_runs_one_by_one() -> None:
    for network in NETWORKS.values():
        runs = [start(network, seed) for seed in range(3)]
        together = {name: torch.stack([params[name] for params, _, _ in runs]) for name in network.shapes}
        losses = network.loss(together, torch.stack([x for _, x, _ in runs]), torch.stack([y for _, _, y in runs]))
        assert torch.allclose(losses, torch.stack([network.loss(*run) for run in runs]))


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_factors_multiply_to_the_jacobian(network: Network) -> None:
    params, x, _ = start(network)
    for site in network.sites:
        left, weight, right = factors(site, params, x)
        assert torch.allclose(left @ weight @ right, jacobians(network, params, x, site.block)), site


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_the_block_is_its_gauss_newton_part_where_we_say_that_the_network_is_piecewise_linear(network: Network) -> None:
    params, x, y = start(network)
    whole = hessian(network, params, x, y)
    for site in network.sites:
        block, part = block_of(network, whole, site.block), gauss_newton(network, params, x, site.block)
        assert torch.allclose(block, part, atol=1e-12) == site.piecewise_linear, site


@settings(max_examples=15)
@given(st.sampled_from(["mlp", "transformer"]), st.integers(0, 10**6), st.floats(0.1, 100), st.sampled_from([1, None]))
def test_no_bound_is_above_the_truth_where_it_is_proven(name: str, seed: int, factor: float, top: int | None) -> None:
    network = NETWORKS[name]
    params, x, y = start(network, seed)
    weight = "layer4" if name == "mlp" else "O"
    params[weight] = rescaled(params[weight], factor, top)
    whole = hessian(network, params, x, y)
    for site in network.sites:
        if site.piecewise_linear:
            bounds = block_bounds(site, params, x)
            block = largest(block_of(network, whole, site.block))
            assert max(bounds.simple, bounds.sum_form, bounds.index_form) <= bounds.examples * SLACK
            assert bounds.examples <= block * SLACK
            assert block <= largest(whole) * SLACK


@settings(max_examples=15)
@given(st.lists(st.integers(1, 4), min_size=3, max_size=5), st.integers(0, 10**6), st.sampled_from(["relu", "linear"]))
def test_bounds_hold_for_random_chains(widths: list[int], seed: int, kind: str) -> None:
    layers = {f"layer{i}": (after, before) for i, (before, after) in enumerate(itertools.pairwise(widths))}
    network = chain("random", layers, torch.relu if kind == "relu" else torch.clone, piecewise_linear=True)
    params = network.init(seed)
    x, y = draw(seed, (5, widths[0]), (5, widths[-1]))
    whole = hessian(network, params, x, y)
    for weight in list(layers)[1:]:
        bounds = best_bounds(network, params, x, weight)
        assert bounds is not None
        assert max(bounds.simple, bounds.sum_form, bounds.index_form) <= bounds.examples * SLACK + 1e-15
        assert bounds.examples <= largest(whole) * SLACK + 1e-15


@given(sizes, sizes, sizes, sizes, st.integers(0, 10**6))
def test_pieces_against_brute_force(m: int, p: int, q: int, n: int, seed: int) -> None:
    left, weight, right = draw(seed, (m, p), (p, q), (q, n))
    middle = largest(left @ weight @ right)
    assert float(simple_bound(left, weight, right)) <= middle**2 * SLACK
    assert float(sum_bound(weight, right)) <= largest(weight @ right) * SLACK
    assert float(index_bound(left, weight, right)) <= middle * SLACK
    # every sum of the remark, not only the best mean
    products, x, y = (np.linalg.svd(each, compute_uv=False) for each in (weight @ right, weight, right))
    x, y = (np.pad(each, (0, q))[:q] for each in (x, y))
    for k in range(1, q + 1):
        assert (x[:k] * y[::-1][:k]).sum() <= products[:k].sum() * SLACK
    # every triple of indices
    first, second, third = (values(each, size).tolist() for each, size in ((left, p), (weight, min(p, q)), (right, q)))
    triples = [first[a] * second[b] * third[c] for a in range(p) for b in range(min(p, q)) for c in range(q)
               if a + b + c + 3 == p + q + 1]  # fmt: skip
    assert float(index_bound(left, weight, right)) == pytest.approx(max(triples, default=0.0), abs=1e-12)


def test_row_gain_against_a_search_and_of_a_matrix_that_loses_a_dimension() -> None:
    matrix = draw(3, (2, 5))[0]
    angles = torch.linspace(0, torch.pi, 20001, dtype=torch.float64)
    searched = (matrix.T @ torch.stack([angles.cos(), angles.sin()])).norm(dim=0).min()
    assert float(row_gain(matrix)) == pytest.approx(float(searched), rel=1e-6)
    assert float(row_gain(matrix.T)) == 0


def test_a_tall_factor_breaks_the_lemma_if_the_last_reported_singular_value_is_used() -> None:
    """Lemma A.1 as numerical code would read it: sigma_max(XY) >= sigma_max(X) svdvals(Y)[-1] is false here."""
    x, y = torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    assert float(torch.linalg.svdvals(y)[-1]) == 1
    assert largest(x @ y) == 0
    assert float(row_gain(y)) == 0  # ours counts the lost dimension


@pytest.mark.parametrize("dead", range(9))
def test_dead_units_hide_the_top_singular_values(dead: int) -> None:
    """W times a ReLU mask with z dead units: our bound is sigma_{z+1}(W), the simple one 0, whatever sigma_1 is."""
    weight = draw(0, (8, 8))[0]
    mask = torch.diag(torch.tensor([0.0] * dead + [1.0] * (8 - dead), dtype=torch.float64))
    one = torch.eye(8, dtype=torch.float64)
    spectrum = [*values(weight, 8).tolist(), 0.0]
    assert float(index_bound(one, weight, mask)) == pytest.approx(spectrum[dead])
    assert (float(simple_bound(one, weight, mask)) > 0) == (dead == 0)
    # inflating the top z values moves no bound (and k = z in the lock's algorithm buys none); the top z + 1 do
    if 0 < dead < 8:
        hidden = index_bound(one, rescaled(weight, 1e3, dead), mask)
        assert float(hidden) == pytest.approx(spectrum[dead])
        assert float(index_bound(one, rescaled(weight, 1e3, dead + 1), mask)) == pytest.approx(1e3 * spectrum[dead])
        assert float(sum_bound(weight, mask)) <= spectrum[dead]


def test_theorem_2_1_fails_for_tanh() -> None:
    """One unit, one example, a target that makes the dropped residual term cancel the block; sigma(W_2) = 1000.

    The block is exactly 0, and the whole Hessian is less than a hundredth of the claimed bound.
    """
    network = chain("unit", {"layer1": (1, 1), "layer2": (1, 1)}, torch.tanh, piecewise_linear=False)
    slope, size, x = 0.5, 1000.0, torch.ones(1, 1, dtype=torch.float64)
    params = {"layer1": x * slope, "layer2": x * size}
    t = torch.tanh(x * slope)
    first, second = 1 - t**2, -2 * t * (1 - t**2)
    y = network.forward(params, x) + size * first**2 / second
    whole = hessian(network, params, x, y)
    claimed = block_bounds(network.sites[0], params, x)
    assert largest(block_of(network, whole, "layer1")) < 1e-6
    assert claimed.simple == pytest.approx(2 * size**2 * float(first) ** 2)
    assert largest(whole) < claimed.simple / 100


@settings(max_examples=10)
@given(st.integers(0, 10**6), st.floats(0.1, 30))
def test_for_tanh_what_is_left_after_the_residual_term_holds(seed: int, factor: float) -> None:
    """Weyl: sigma_max of the block is at least that of its Gauss-Newton part minus the residual term's."""
    network = NETWORKS["cnn"]
    params, x, y = start(network, seed, 4)
    params["layer2"] = rescaled(params["layer2"], factor)
    whole = hessian(network, params, x, y)
    for site in network.sites:
        bounds = block_bounds(site, params, x)
        part = gauss_newton(network, params, x, site.block)
        residual = largest(block_of(network, whole, site.block) - part)
        found = max(bounds.simple, bounds.sum_form, bounds.index_form)
        assert found <= largest(part) * SLACK
        assert largest(whole) >= found - residual - 1e-9


@settings(max_examples=10)
@given(st.integers(0, 10**6), st.floats(0.1, 100))
def test_input_side_bound_holds_for_the_value_matrix(seed: int, factor: float) -> None:
    network = NETWORKS["transformer"]
    params, x, y = start(network, seed)
    params["V"] = rescaled(params["V"], factor, 1)
    site = next(site for site in network.sites if site.block == "V")
    left = factors(site, params, x)[0]
    bound = input_side_bound(float(values(left, 4)[:, -1].min()), params["V"], mixed(params, x).T, 4)
    block = largest(block_of(network, hessian(network, params, x, y), "O"))
    assert 0 < bound <= block * SLACK


def test_best_bounds_says_where_there_is_no_block() -> None:
    network = NETWORKS["transformer"]
    params, x, _ = start(network)
    assert best_bounds(network, params, x, "Q") is None
    assert best_bounds(NETWORKS["cnn"], *start(NETWORKS["cnn"])[:2], "layer2", proven=True) is None
    assert isinstance(best_bounds(network, params, x, "O"), Bounds)


def test_rescaled_changes_the_top_singular_values_only() -> None:
    weight = draw(0, (4, 6))[0]
    before, after = torch.linalg.svdvals(weight), torch.linalg.svdvals(rescaled(weight, 10, 2))
    assert torch.allclose(after, before * torch.tensor([10, 10, 1, 1]))
    assert torch.allclose(rescaled(weight, 3), 3 * weight)


def test_unknown_block() -> None:
    with pytest.raises(ValueError, match="layer9"):
        block_of(NETWORKS["mlp"], torch.zeros(1, 1), "layer9")


@pytest.mark.parametrize("name", NETWORKS)
def test_adam_counts_the_steps_of_torchs_adam(name: str) -> None:
    """The target is the loss that torch's own Adam has after 30 steps, and not after 29."""
    network, rates = NETWORKS[name], (1e-3, 1e-2)
    runs = [start(network, seed) for seed in range(2)]
    targets = []
    for (params, x, y), rate in zip(runs, rates, strict=True):
        weights = {key: value.clone().requires_grad_() for key, value in params.items()}
        optimizer = torch.optim.Adam(weights.values(), lr=rate)
        for _ in range(30):
            optimizer.zero_grad()
            network.loss(weights, x, y).backward()
            optimizer.step()
        targets.append(float(network.loss(weights, x, y).detach()))
    together = {key: torch.stack([params[key] for params, _, _ in runs]) for key in network.shapes}
    data = [torch.stack([run[index] for run in runs]) for index in (1, 2)]
    target, rate = torch.tensor(targets, dtype=torch.float64), torch.tensor(rates, dtype=torch.float64)
    counts, least = adam_steps(network, together, *data, target=target * (1 + 1e-12), rate=rate, limit=50)
    assert counts == [30, 30]
    assert max(least[i] / targets[i] for i in range(2)) <= 1 + 1e-9
    assert adam_steps(network, together, *data, target=target, rate=rate, limit=20)[0] == [None, None]
