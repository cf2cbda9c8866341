"""Offload changes where numbers live, not what they are (design invariant 4)."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from attack_cases import attacked, build, context, released

from harness import probes

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(probes.check("deepspeed")), reason="deepspeed cannot run here")]


@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize("model", ["llama", "dlr_llama"])
def test_same_trajectory_as_full(stage: int, model: str) -> None:
    where = context()
    result = build("offload", zero_stage=stage).attack(released(model), where)
    assert list(result.training.losses) == pytest.approx(list(attacked("full", model)[0].training.losses), rel=1e-3)
    assert result.report == {"zero_stage": stage}
    full = attacked("full", model)[1].meter.bills["attack"]
    assert where.meter.bills["attack"].peak_device_bytes < full.peak_device_bytes


@pytest.mark.parametrize("stage", [2, 3])
def test_the_same_under_bf16(stage: int) -> None:
    """DeepSpeed computes in bf16 on fp32 masters, as autocast does; the parts of ZeRO-3 are bf16 from the start."""
    plain, split = (build(name, **given).attack(released("llama"), dataclasses.replace(context(), bf16=True))
                    for name, given in (("full", {}), ("offload", {"zero_stage": stage})))  # fmt: skip
    assert list(split.training.losses) == pytest.approx(list(plain.training.losses), rel=5e-3)
    assert not split.training.unmoved
    assert {p.dtype for p in split.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("stage", [2, 3])
def test_master_weights_are_not_rounded(stage: int) -> None:
    """A rate too small to move anything moves nothing, under bf16 too."""
    before = {name: p.clone() for name, p in released("llama").model.named_parameters()}
    attack = build("offload", zero_stage=stage, learning_rate=1e-15, max_steps=2)
    after = attack.attack(released("llama"), dataclasses.replace(context(), bf16=True)).model
    assert all(torch.equal(p, before[name]) for name, p in after.named_parameters())
