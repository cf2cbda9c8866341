"""Recomputing activations changes memory and nothing else (design invariant 4)."""

from __future__ import annotations

import pytest
from attack_cases import build, context, lock_like_dlr, released

from harness.testing import random_llama


def bill(model: str | object, name: str, **settings: object) -> tuple[list[float], object]:
    where = context()
    result = build(name, **settings).attack(released(model), where)
    return list(result.training.losses), where.meter.bills["attack"]


@pytest.mark.parametrize("model", ["llama", "dlr_llama", "gpt2", "dlr_gpt2"])
def test_same_trajectory_as_full_with_fewer_bytes_kept(model: str) -> None:
    losses, full = bill(model, "full")
    again, checkpointed = bill(model, "checkpointing")
    assert again == pytest.approx(losses, rel=1e-5)
    assert checkpointed.kept_for_backward_bytes < 0.8 * full.kept_for_backward_bytes
    assert checkpointed.peak_backward_bytes < full.peak_backward_bytes
    assert checkpointed.backward_flops > full.backward_flops


def test_pieces_inside_a_deep_net_lower_the_peak_below_that_of_whole_layers() -> None:
    """With the layers alone a whole net is alive in backward: the lock still bites there."""
    peaks = {}
    for segments in (0, 1, 4, None):
        model = lock_like_dlr(random_llama(vocab_size=260, num_hidden_layers=1), depth=32)
        peaks[segments] = bill(model, "checkpointing", segments=segments, max_steps=1)[1].peak_backward_bytes
    assert peaks[None] < 0.7 * peaks[0]
    assert peaks[4] < 0.7 * peaks[0]
    assert peaks[None] < peaks[1]


def test_the_net_is_left_as_it_was_released() -> None:
    result = build("checkpointing", max_steps=1).attack(released("dlr_llama"), context())
    assert not any(getattr(module, "checkpoint", False) for module in result.model.modules())
    assert not result.model.is_activation_checkpointing
    assert set(result.report["segments"]) == {"model.layers.0.mlp", "model.layers.1.mlp"}
