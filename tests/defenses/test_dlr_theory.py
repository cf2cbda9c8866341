"""The formulas of kept bytes against the meter's counts on real DLR-Nets and a real SwiGLU: equal, not near."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from defenses.dlr.modeling_dlr import DLRNet
from harness.meters.micro import MicroCost, measure_micro
from harness.theory.activations import (
    checkpointed_kept,
    checkpointed_peak,
    dlr_kept,
    lean,
    padded,
    segment_size,
    swiglu_kept,
)

WIDTH, TOKENS = 16, 8


def count(module: nn.Module, width: int = WIDTH) -> MicroCost:
    """One pass whose input is computed (and so counted) and whose loss keeps nothing."""
    scale, x = nn.Parameter(torch.ones(width)), torch.randn(TOKENS, width)
    params = [*module.parameters(), scale]
    return measure_micro(lambda: module(x * scale).sum(), torch.Tensor.backward, params)[1]


@settings(max_examples=10)
@given(st.integers(2, 24), st.lists(st.integers(1, 6), min_size=1, max_size=6), st.booleans(), st.booleans())
def test_kept_bytes_are_the_formulas(width: int, ranks: list[int], norm: bool, relu: bool) -> None:
    net = DLRNet(width, ranks, norm="rms" if norm else "none", activation="relu" if relu else "silu")
    numbers = dlr_kept(width, ranks, norm=norm, activation_keeps_input=not relu)
    assert count(net, width).kept_for_backward_bytes == 4 * TOKENS * numbers
    assert lean(width, ranks) <= numbers
    if not norm and relu:
        assert numbers == lean(width, ranks)


def test_swiglu_kept_bytes_are_the_formula() -> None:
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaMLP

    mlp = LlamaMLP(LlamaConfig(hidden_size=WIDTH, intermediate_size=24, num_attention_heads=2))
    assert count(mlp).kept_for_backward_bytes == 4 * TOKENS * swiglu_kept(WIDTH, 24)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(("depth", "segments"), [(4, 2), (9, 3), (10, 3), (16, 4), (16, 16), (16, 1)])
def test_checkpointing_keeps_the_inputs_of_segments(depth: int, segments: int, norm: bool) -> None:
    net = DLRNet(WIDTH, [3] * depth, norm="rms" if norm else "none")
    net.checkpoint, net.segments = True, segments
    found = count(net)
    assert found.kept_for_backward_bytes == 4 * TOKENS * checkpointed_kept(WIDTH, depth, segments)


@pytest.mark.parametrize("norm", [False, True])
def test_the_peak_is_the_floor_and_the_same_few_tensors_at_every_depth(norm: bool) -> None:
    over = set()
    for depth in (4, 9, 16, 25):
        net = DLRNet(WIDTH, [3] * depth, norm="rms" if norm else "none")
        net.checkpoint, net.segments = True, math.isqrt(depth)
        floor = checkpointed_peak(WIDTH, [3] * depth, net.segments, norm=norm)
        over.add(count(net).peak_backward_bytes - 4 * TOKENS * floor)
    assert len(over) == 1
    assert 0 < over.pop() <= 4 * TOKENS * 4 * WIDTH


def test_a_known_multiple() -> None:
    """SmolLM2-135M at depth 32 (d 576, hidden 1536, rank 72): 3.1 times the MLP lean, 6.2 times with all copies."""
    ranks, base = [72] * 32, swiglu_kept(576, 1536)
    assert sum(ranks) * 2 * 576 == 3 * 576 * 1536  # the same number of weights
    assert (round(lean(576, ranks) / base, 1), round(padded(576, ranks) / base, 1)) == (3.1, 6.2)


@pytest.mark.parametrize("segments", [0, 5])
def test_impossible_segments(segments: int) -> None:
    with pytest.raises(ValueError, match="segments"):
        segment_size(4, segments)
