"""Offload changes where numbers live, not what they are (design invariant 4)."""

from __future__ import annotations

import pytest
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
