"""Design invariant 4: what must not matter does not matter. Same trajectory within the tolerance stated here.

Members of a class share model, data, seed and settings; the first one is the reference.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.meters.meter import Meter
from harness.packing import PackedBlocks
from harness.plugins import Context
from harness.testing import random_llama
from harness.training import TrainResult, TrainSettings, train

SETTINGS = TrainSettings(max_steps=10, learning_rate=1e-3, per_device_train_batch_size=8, block_size=32, eval_points=5)
LOSS = 2e-5
"""Absolute difference of losses (nats a token) and scores that sums in another order may make within ten steps."""
BIAS = 5e-6
"""Mean signed difference: a systematic drift would show here first."""


def member(folder: Path, *, lora: bool = False, bf16: bool = False, options: dict[str, Any] | None = None,
           **changes: Any) -> tuple[TrainResult, Meter, dict[str, torch.Tensor]]:  # fmt: skip
    """Train one member of the class; scores are the loss on held-out tokens."""
    knobs = SETTINGS.model_copy(update=changes)
    model = random_llama()
    if lora:
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(1)
        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
    tokens = np.random.default_rng(3).integers(3, 60, 6000)
    held_out = torch.from_numpy(np.random.default_rng(4).integers(3, 60, (4, 32)))

    def probe(probed: Any) -> float:
        return -float(probed(input_ids=held_out, labels=held_out).loss)

    data = PackedBlocks(tokens, block_size=knobs.block_size, batch_size=knobs.per_device_train_batch_size,
                        accumulate=knobs.gradient_accumulation_steps, seed=0)  # fmt: skip
    meter = Meter()
    context = Context(seed=0, device="cpu", folder=folder, meter=meter, bf16=bf16)
    result = train(model, data, knobs, context, probe=probe, **(options or {}))
    return result, meter, {name: p.detach().clone() for name, p in model.named_parameters()}


def assert_same_trajectory(a: TrainResult, b: TrainResult, tolerance: float = LOSS, bias: float = BIAS) -> None:
    assert a.steps == b.steps
    assert list(a.trained) == list(b.trained)
    for first, second in ((a.losses, b.losses), ([p.score for p in a.trajectory], [p.score for p in b.trajectory])):
        difference = np.asarray(first) - np.asarray(second)
        assert np.abs(difference).max() <= tolerance
        assert abs(difference.mean()) <= bias
    assert [point.step for point in a.trajectory] == [point.step for point in b.trajectory]
    assert a.losses[-1] < a.losses[0]
    assert not a.unmoved
    assert not b.unmoved
    assert not b.missing_gradients


@pytest.mark.parametrize("lora", [False, True])
def test_gradient_checkpointing(tmp_path: Path, lora: bool) -> None:
    plain, first, a = member(tmp_path, lora=lora)
    saving, second, b = member(tmp_path, lora=lora, gradient_checkpointing=True)
    assert_same_trajectory(plain, saving, tolerance=0, bias=0)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert second.total.kept_for_backward_bytes < first.total.kept_for_backward_bytes
    assert second.total.peak_backward_bytes < first.total.peak_backward_bytes
    assert second.total.forward_flops == first.total.forward_flops
    assert second.total.backward_flops > first.total.backward_flops


@pytest.mark.parametrize("bf16", [False, True])
def test_accumulation(tmp_path: Path, bf16: bool) -> None:
    whole, first, _ = member(tmp_path, bf16=bf16)
    parts, second, _ = member(tmp_path, bf16=bf16, per_device_train_batch_size=2, gradient_accumulation_steps=4)
    # bf16 products are rounded at 2^-8; gradients of other batch shapes differ by that, not the trajectory's course
    assert_same_trajectory(whole, parts, *((2e-3, 5e-4) if bf16 else (LOSS, BIAS)))
    assert second.total.tokens == first.total.tokens
    assert second.total.flops == first.total.flops
    assert second.total.kept_for_backward_bytes < first.total.kept_for_backward_bytes / 3


def test_resuming(tmp_path: Path) -> None:
    def killer(step: int) -> bool:
        if step == 7:
            raise InterruptedError
        return False

    straight, _, a = member(tmp_path / "straight", save_steps=3)
    with pytest.raises(InterruptedError):
        member(tmp_path / "killed", save_steps=3, options={"stop": killer})
    resumed, _, b = member(tmp_path / "killed", save_steps=3)
    assert_same_trajectory(straight, resumed, tolerance=0, bias=0)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_bill_does_not_depend_on_what_ran_before(tmp_path: Path) -> None:
    _, first, _ = member(tmp_path)
    _, second, _ = member(tmp_path)
    drop = {"seconds", "peak_host_bytes", "energy_joules"}
    assert first.total.model_dump(exclude=drop) == second.total.model_dump(exclude=drop)


@pytest.fixture
def offload_ready() -> None:
    """DeepSpeed, a compiler and ninja; the first use builds its CPU optimizer."""
    import shutil

    pytest.importorskip("deepspeed")
    if not shutil.which("g++") or not shutil.which("ninja"):
        pytest.skip("DeepSpeed's CPU optimizer needs g++ and ninja")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("offload_ready")
@pytest.mark.parametrize(("stage", "changes"), [
    (2, {}), (3, {}), (3, {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4}),
    (2, {"lora": True, "gradient_checkpointing": True}), (3, {"lora": True}),
])  # fmt: skip
def test_offload(tmp_path: Path, stage: int, changes: dict[str, Any]) -> None:
    import os

    from harness.loop.deepspeed_engine import zero_config

    plain, first, a = member(tmp_path, **changes)
    environment, threads, linear = dict(os.environ), torch.get_num_threads(), torch.nn.functional.linear
    config = zero_config(stage, offload_param=stage == 3)
    offloaded, second, b = member(tmp_path, options={"deepspeed": config}, **changes)
    assert_same_trajectory(plain, offloaded)
    assert max(float((a[name] - b[name]).abs().max()) for name in a) < 1e-4
    assert second.total.flops == first.total.flops
    assert second.total.tokens == first.total.tokens
    assert (second.total.peak_device_bytes or 0) < (first.total.peak_device_bytes or 0)
    # and the process is as it was: the plain loop gives the bits, and the bill, it gave before
    assert (dict(os.environ), torch.get_num_threads()) == (environment, threads)
    assert torch.nn.functional.linear is linear
    assert not torch.distributed.is_initialized()
    _, third, c = member(tmp_path, **changes)
    assert (third.total.forward_flops, third.total.backward_flops) == (
        first.total.forward_flops, first.total.backward_flops)  # fmt: skip
    assert all(torch.equal(a[name], c[name]) for name in a)


def test_a_build_that_was_killed_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.loop.deepspeed_process import sole_builder

    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    abandoned = tmp_path / "cpu_adam" / "lock"
    abandoned.parent.mkdir()
    abandoned.touch()
    with sole_builder():  # DeepSpeed would wait for this file's removal, for ever
        assert not abandoned.exists()


@pytest.mark.slow
@pytest.mark.usefixtures("offload_ready")
def test_offload_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    from harness.errors import UsageError
    from harness.loop.deepspeed_engine import zero_config

    for changes in ({"save_steps": 1}, {"optim": "sgd"}):
        with pytest.raises(UsageError, match=next(iter(changes))):
            member(tmp_path, options={"deepspeed": zero_config(2)}, **changes)
    assert not torch.distributed.is_initialized()
