"""The stock Trainer and the project's loop are two implementations of the same attack."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from attack_cases import MODELS, build, context, released

from harness.errors import UsageError

TOLERANCE = {"rel": 2e-5}
"""Of the losses over 20 steps in fp32; the two update with different kernels (fused, and not)."""


@pytest.mark.parametrize("model", MODELS)
def test_losses_and_weights_agree_with_full(model: str) -> None:
    ours = build("full", max_steps=20).attack(released(model), context())
    theirs = build("full_trainer", max_steps=20).attack(released(model), context())
    assert list(theirs.training.losses) == pytest.approx(list(ours.training.losses), **TOLERANCE)
    for (name, a), (_, b) in zip(ours.model.named_parameters(), theirs.model.named_parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-4), name


@pytest.mark.parametrize("changes", [
    {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}, {"gradient_checkpointing": True},
    {"lr_scheduler_type": "linear", "warmup_ratio": 0.3}, {"max_grad_norm": 0.0, "adam_beta2": 0.95},
])  # fmt: skip
def test_every_setting_means_the_same_in_both(changes: dict[str, Any]) -> None:
    ours = build("full", **changes).attack(released("dlr_llama"), context())
    theirs = build("full_trainer", **changes).attack(released("dlr_llama"), context())
    assert list(theirs.training.losses) == pytest.approx(list(ours.training.losses), **TOLERANCE)


def test_the_bills_agree_too() -> None:
    one, other = context(), context()
    build("full").attack(released("dlr_llama"), one)
    build("full_trainer").attack(released("dlr_llama"), other)
    ours, theirs = one.meter.bills["attack"], other.meter.bills["attack"]
    for name in ("forward_flops", "backward_flops", "tokens", "steps", "gradient_bytes", "trainable_parameters"):
        assert getattr(ours, name) == getattr(theirs, name), name
    for name in ("kept_for_backward_bytes", "peak_backward_bytes", "peak_device_bytes", "optimizer_bytes"):
        assert getattr(theirs, name) == pytest.approx(getattr(ours, name), rel=0.01), name


def test_a_setting_that_the_two_read_differently_is_refused() -> None:
    for changes in ({"weight_decay": 0.1}, {"optim": "sgd"}, {"save_steps": 5}):
        with pytest.raises(UsageError, match=f"attack.{next(iter(changes))}="):
            build("full_trainer", **changes)


def test_the_model_keeps_its_own_config_and_stdout_stays_clean(capfd: pytest.CaptureFixture[str]) -> None:
    target = released("llama")
    result = build("full_trainer", max_steps=2).attack(target, context())
    assert result.model.config.use_cache is True
    assert "loss" not in capfd.readouterr().out
