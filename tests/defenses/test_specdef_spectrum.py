"""The power iteration agrees with a full SVD: values, gradients, on any shape, and while a matrix drifts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from torch import nn

from defenses.specdef.spectrum import TopSingularValues, as_matrix, matrices

SIDES = st.integers(1, 48)
TOLERANCE = 1e-3  # relative to the largest value, which for a zero value is the only sensible scale


def matrix(rows: int, columns: int, rank: int, seed: int, decay: float) -> torch.Tensor:
    """A random matrix of a rank (or less), its spectrum flat (decay 0) or steep."""
    generator = torch.Generator().manual_seed(seed)
    inner = min(rank, rows, columns)
    left, right = (torch.randn(side, inner, generator=generator) for side in (rows, columns))
    return left * torch.exp(-decay * torch.arange(inner)) @ right.T


def error(found: torch.Tensor, weight: torch.Tensor) -> float:
    """Largest difference to svdvals, relative to the largest value."""
    exact = torch.linalg.svdvals(as_matrix(weight).detach())
    assert len(found) <= len(exact)
    return float((found.detach() - exact[: len(found)]).abs().max() / exact[0].clamp_min(1e-30))


@given(rows=SIDES, columns=SIDES, rank=st.integers(1, 48), k=st.integers(1, 4), seed=st.integers(0, 2**20),
       decay=st.sampled_from([0.0, 0.1, 1.0]))  # fmt: skip
@examples(max_examples=60)
def test_values_agree_with_svdvals_on_any_shape(rows: int, columns: int, rank: int, k: int, seed: int,
                                                decay: float) -> None:  # fmt: skip
    weight = matrix(rows, columns, rank, seed, decay)
    top = TopSingularValues({"w": weight}, k, seed=seed)
    top.settle()
    found = top()["w"]
    assert len(found) == min(k, rows, columns)
    assert error(found, weight) < TOLERANCE


@given(rows=st.integers(8, 64), columns=st.integers(8, 64), rank=st.integers(2, 64), seed=st.integers(0, 2**20))
@examples(max_examples=20)
def test_a_drifting_matrix_is_followed_from_the_warm_start(rows: int, columns: int, rank: int, seed: int) -> None:
    weight, generator = matrix(rows, columns, rank, seed, 0.05), torch.Generator().manual_seed(seed)
    top = TopSingularValues({"w": weight}, 2, seed=seed)
    top.settle()
    for _ in range(25):  # as an optimizer moves weights: a percent a step, and not along the spectrum
        weight += 0.01 * weight.norm() / weight.numel() ** 0.5 * torch.randn(weight.shape, generator=generator)
        assert error(top()["w"], weight) < TOLERANCE


def test_a_direction_that_no_column_has_any_part_of_is_found_all_the_same() -> None:
    weight = torch.zeros(40, 30)
    weight[torch.arange(7), torch.arange(7)] = torch.arange(7.0, 0.0, -1)
    top = TopSingularValues({"w": weight}, 2)
    top.settle()
    weight[20, 20] = 50.0
    for _ in range(4):
        found = top()["w"]
    assert error(found, weight) < TOLERANCE


@pytest.mark.parametrize("shape", [(40, 40), (12, 50), (50, 12), (7, 3, 2, 2)])
def test_the_gradient_is_that_of_svdvals(shape: tuple[int, ...]) -> None:
    weight = torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64).requires_grad_()
    top = TopSingularValues({"w": weight}, 3, iterations=4)
    top.settle()
    scale = torch.tensor([1.0, 2.0, -3.0], dtype=torch.float64)
    (top()["w"] * scale).sum().backward()
    ours, weight.grad = weight.grad, None
    (torch.linalg.svdvals(as_matrix(weight))[:3] * scale).sum().backward()
    assert ours is not None
    assert ours.shape == weight.shape
    torch.testing.assert_close(ours, weight.grad, rtol=0, atol=1e-3)


def test_it_is_the_warm_start_that_makes_one_round_enough() -> None:
    weight = torch.randn(200, 150, generator=torch.Generator().manual_seed(0))
    cold = TopSingularValues({"w": weight}, 2)
    warm = TopSingularValues({"w": weight}, 2)
    warm.settle()
    assert error(cold()["w"], weight) > 10 * TOLERANCE > 10 * error(warm()["w"], weight)


def test_half_precision_weights_are_read_in_float32_and_get_gradients_of_their_type() -> None:
    weight = torch.randn(20, 30, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    top = TopSingularValues({"w": weight}, 2)
    top.settle()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = top()["w"]
    assert found.dtype == torch.float32
    assert error(found, weight.detach().float()) < TOLERANCE
    found.sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.bfloat16


def test_the_same_seed_gives_the_same_values_bit_for_bit() -> None:
    weights = {name: matrix(20, 30, 30, seed, 0.0) for seed, name in enumerate("abc")}
    runs = [TopSingularValues(weights, 2, seed=seed) for seed in (1, 1, 2)]
    first, again, other = (torch.cat(list(run().values())) for run in runs)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


class Mixed(nn.Module):
    """One of each kind."""

    def __init__(self) -> None:
        from transformers.pytorch_utils import Conv1D

        super().__init__()
        self.embed, self.linear, self.norm = nn.Embedding(5, 4), nn.Linear(4, 6), nn.LayerNorm(6)
        self.conv, self.transposed, self.tied = nn.Conv2d(2, 3, 3), Conv1D(7, 4), nn.Linear(4, 5)
        self.tied.weight = self.embed.weight
        self.again = self.linear


def test_matrices_are_found_whatever_applies_them_and_embeddings_are_not() -> None:
    model = Mixed()
    assert list(matrices(model)) == ["linear.weight", "conv.weight", "transposed.weight"]
    assert set(matrices(model)) <= dict(model.named_parameters()).keys()
    top = TopSingularValues(matrices(model), 2)
    top.settle()
    assert all(error(values, matrices(model)[name]) < TOLERANCE for name, values in top().items())


def test_the_output_head_is_left_out_tied_or_not(tiny_llama: Any) -> None:
    names = list(matrices(tiny_llama.model))
    assert len(names) == 2 * 7
    assert not any("lm_head" in name or "embed" in name for name in names)


@pytest.mark.parametrize("bad", [{"k": 0}, {"k": 1, "iterations": 0}, {"k": 1, "spare": 0}])
def test_impossible_sizes_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        TopSingularValues({"w": torch.ones(2, 2)}, **bad)
