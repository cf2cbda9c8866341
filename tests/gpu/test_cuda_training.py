"""Training on a CUDA device: resumed equals straight, and the number of the device is obeyed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from training_cases import SETTINGS, batches, context, same

from harness import probes
from harness.testing import random_llama
from harness.training import train

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(probes.check("cuda")), reason=str(probes.check("cuda")))]


@pytest.mark.parametrize("optim", ["adamw_torch", "muon"])
def test_resumed_equals_straight_bit_for_bit(optim: str, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def stop(step: int) -> bool:
        if step == 5:
            raise Killed
        return False

    settings = SETTINGS.model_copy(update={"optim": optim, "save_steps": 2})
    models = [random_llama().to("cuda") for _ in range(3)]
    where = [dataclasses.replace(context(tmp_path / part), device="cuda") for part in ("straight", "killed", "killed")]
    train(models[0], batches(settings), settings, where[0])
    with pytest.raises(Killed):
        train(models[1], batches(settings), settings, where[1], stop=stop)
    result = train(models[2], batches(settings), settings, where[2])
    assert result.steps == SETTINGS.max_steps
    assert same(models[2], models[0])


@pytest.mark.skipif(not torch.cuda.is_available() or torch.cuda.device_count() < 2, reason="one GPU")
def test_the_second_gpu_is_the_second_gpu(tmp_path: Path) -> None:
    torch.cuda.set_device(1)
    model = random_llama().to("cuda:1")
    train(model, batches(), SETTINGS, dataclasses.replace(context(tmp_path), device="cuda:1"))
    assert {p.device.index for p in model.parameters()} == {1}
