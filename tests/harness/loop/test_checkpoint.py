"""A run killed anywhere and started again ends with the same bits; a damaged checkpoint is never resumed from."""

from __future__ import annotations

import random
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.bill import Bill
from harness.budget import Budget
from harness.meters.meter import Meter
from harness.packing import PackedBlocks
from harness.plugins import Context
from harness.testing import random_llama
from harness.training import TrainResult, TrainSettings, train

STEPS = 7
SETTINGS = TrainSettings(max_steps=STEPS, learning_rate=3e-3, per_device_train_batch_size=2, block_size=16,
                         save_steps=2, eval_points=3, gradient_accumulation_steps=2)  # fmt: skip


class KilledError(Exception):
    """Stands in for the end of the process."""


def once(folder: Path, knobs: TrainSettings = SETTINGS, *, die_after: int = 0, seed: int = 0,
         budget: str = "") -> tuple[Any, TrainResult, Meter]:  # fmt: skip
    """One process: a fresh model and meter; killed in the progress callback of step `die_after`."""

    def progress(_: str, done: int, __: int) -> None:
        if done == die_after:
            raise KilledError

    model = random_llama()
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.1
    meter = Meter(Budget.from_text(budget))
    context = Context(seed=seed, device="cpu", folder=folder, meter=meter, progress=progress)
    tokens = torch.arange(2000).numpy() * 7919 % 251
    data = PackedBlocks(tokens, block_size=16, batch_size=2, accumulate=2, seed=seed)
    return model, train(model, data, knobs, context, probe=lambda m: float(m.lm_head.weight.sum())), meter


def content(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def counts(bill: Bill) -> dict[str, Any]:
    return bill.model_dump(exclude={"seconds", "peak_host_bytes"})


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_8bit", "sgd", "adafactor", "muon", "sophia", "adahessian"])
def test_resumed_equals_straight_bit_for_bit(tmp_path: Path, optim: str) -> None:
    knobs = SETTINGS.model_copy(update={"optim": optim})
    model, straight, meter = once(tmp_path / "straight", knobs)
    for die_after in random.Random(0).sample(range(1, STEPS), 3):
        folder = tmp_path / str(die_after)
        with pytest.raises(KilledError):
            once(folder, knobs, die_after=die_after)
        assert (folder / "checkpoint-train").exists() == (die_after > 2)
        again, resumed, second = once(folder, knobs)
        assert equal(content(model), content(again))
        assert asdict(resumed) == asdict(straight)
        assert counts(second.total) == counts(meter.total)
        assert not (folder / "checkpoint-train").exists()


def test_killed_again_and_again(tmp_path: Path) -> None:
    model, straight, _ = once(tmp_path / "straight")
    for die_after in (3, 3, 5, 6):
        with pytest.raises(KilledError):
            once(tmp_path / "killed", die_after=die_after)
    again, resumed, _ = once(tmp_path / "killed")
    assert equal(content(model), content(again))
    assert asdict(resumed) == asdict(straight)


def test_seconds_of_the_killed_part_are_on_the_bill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    real = PackedBlocks.__call__

    def slow(self: PackedBlocks, step: int, micro: int) -> Any:
        now[0] += 1.0
        return real(self, step, micro)

    monkeypatch.setattr(PackedBlocks, "__call__", slow)
    with pytest.raises(KilledError):
        once(tmp_path, die_after=5)
    now[0] = 1000.0
    *_, meter = once(tmp_path)
    assert 4 * 2 + 3 * 2 <= meter.total.seconds <= 7 * 2 + 4


@pytest.mark.parametrize("change", [{"seed": 1}, {"budget": "steps=6"}, {"knobs": {"learning_rate": 1e-3}},
                                    {"knobs": {"weight_decay": 0.1}}])  # fmt: skip
def test_a_checkpoint_of_another_run_is_ignored(
    tmp_path: Path, change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    change = dict(change)
    knobs = SETTINGS.model_copy(update=change.pop("knobs", {}))
    fresh, *_ = once(tmp_path / "fresh", knobs, **change)
    with pytest.raises(KilledError):
        once(tmp_path / "other", die_after=5)
    model, *_ = once(tmp_path / "other", knobs, **change)
    assert equal(content(model), content(fresh))
    assert "another run" in caplog.text


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("saved")
    model, *_ = once(folder / "straight")
    with pytest.raises(KilledError):
        once(folder / "killed", die_after=5)
    return folder / "killed", content(model)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(which=st.integers(0, 2), share=st.floats(0, 1, exclude_max=True), flip=st.booleans())
def test_damage_anywhere_never_gives_a_wrong_resume(
    saved: tuple[Path, dict[str, torch.Tensor]], tmp_path_factory: pytest.TempPathFactory,
    which: int, share: float, flip: bool,
) -> None:  # fmt: skip
    """Any file cut or changed at any point: training starts anew and ends with the same bits."""
    folder = tmp_path_factory.mktemp("damaged")
    shutil.copytree(saved[0], folder, dirs_exist_ok=True)
    files = sorted((folder / "checkpoint-train").iterdir())
    assert len(files) == 3
    data = files[which].read_bytes()
    at = int(share * len(data))
    if flip:
        files[which].write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    else:
        files[which].write_bytes(data[:at])
    model, result, _ = once(folder)
    assert equal(content(model), saved[1])
    assert result.steps == STEPS


def test_a_kill_while_saving_leaves_the_older_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import harness.loop.checkpoint

    model, *_ = once(tmp_path / "straight")
    real, calls = harness.loop.checkpoint.atomic_write_bytes, [0]

    def dying(path: Path, data: bytes) -> None:
        calls[0] += 1
        if calls[0] == 4:  # the second file of the second checkpoint
            raise KilledError
        real(path, data)

    monkeypatch.setattr(harness.loop.checkpoint, "atomic_write_bytes", dying)
    with pytest.raises(KilledError):
        once(tmp_path / "killed")
    monkeypatch.setattr(harness.loop.checkpoint, "atomic_write_bytes", real)
    steps: list[int] = []
    again, resumed, _ = once(tmp_path / "killed")
    steps.append(resumed.steps)
    assert equal(content(model), content(again))
    assert steps == [STEPS]


def test_no_pickle_is_written(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        once(tmp_path, die_after=5)
    names = {path.suffix for path in (tmp_path / "checkpoint-train").iterdir()}
    assert names == {".json", ".safetensors"}


@pytest.mark.parametrize(("group", "place"), [({}, "cpu"), ({"fused": True}, "meta"), ({"capturable": True}, "meta")])
def test_step_counters_go_where_the_kernel_reads_them(group: dict[str, bool], place: str) -> None:
    """A fused step on a GPU reads them there (here, `meta` stands for it); any other keeps them on the host."""
    from types import SimpleNamespace

    from harness.loop.checkpoint import restore_optimizer

    p = torch.nn.Parameter(torch.empty(3, device="meta"))
    optimizer: Any = SimpleNamespace(param_groups=[{"params": [p], **group}], state={p: {}})
    saved = {"optimizer/w/step": torch.tensor(5.0), "optimizer/w/exp_avg": torch.ones(3)}
    restore_optimizer(optimizer, {p: "w"}, saved, {})
    assert {key: value.device.type for key, value in optimizer.state[p].items()} == {"step": place, "exp_avg": "meta"}
