"""What of a GPU's memory is the attacker's, on an allocator of numbers (`tests/gpu` has a real one)."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from training_cases import SETTINGS, batches, context, run

from harness.bill import Bill
from harness.errors import OutOfMemory
from harness.meters.device_memory import DeviceMemory, cuda_index
from harness.meters.meter import Meter
from harness.testing import random_llama
from harness.training import train
from harness.workshop import _charge_rest


class Allocator:
    """torch.cuda's counters over one device of 1,000 bytes."""

    def __init__(self) -> None:
        self.allocated = self.highest = 0
        self.fraction = 1.0

    def take(self, size: int) -> None:
        if self.allocated + size > self.fraction * 1000 + 1e-6:
            raise torch.OutOfMemoryError("out of memory")
        self.allocated += size
        self.highest = max(self.highest, self.allocated)

    def give(self, size: int) -> None:
        self.allocated -= size


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Allocator:
    gpu, cuda = Allocator(), torch.cuda
    monkeypatch.setattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: None, raising=False)
    for name, answer in {
        "current_device": lambda: 0, "empty_cache": lambda: None, "memory_allocated": lambda index: gpu.allocated,
        "memory_reserved": lambda index: gpu.allocated, "max_memory_allocated": lambda index: gpu.highest,
        "get_device_properties": lambda index: SimpleNamespace(total_memory=1000),
        "get_per_process_memory_fraction": lambda index: gpu.fraction,
        "set_per_process_memory_fraction": lambda value, index: setattr(gpu, "fraction", value),
        "reset_peak_memory_stats": lambda index: setattr(gpu, "highest", gpu.allocated),
    }.items():  # fmt: skip
        monkeypatch.setattr(cuda, name, answer)
    return gpu


def test_the_device_number_of_cuda_alone_is_the_current_one(gpu: Allocator) -> None:
    assert (cuda_index("cuda"), cuda_index("cuda:3")) == (0, 3)


def test_peaks_are_without_what_others_keep_and_what_scoring_takes(gpu: Allocator) -> None:
    gpu.take(300)  # 100 of them are the attacker's model
    memory = DeviceMemory("cuda", None, 100)
    gpu.take(50)
    gpu.give(50)
    assert memory.peak() == 150
    with memory.aside():
        gpu.take(600)
        gpu.give(600)
    assert memory.peak() == 150
    memory.begin()
    assert memory.peak() == 100
    gpu.take(20)
    assert (memory.peak(), memory.most()) == (120, 150)
    memory.leave()
    gpu.take(500)
    assert memory.most() == 150


def test_the_cap_is_on_the_attackers_bytes_and_not_on_scoring(gpu: Allocator) -> None:
    gpu.take(300)
    memory = DeviceMemory("cuda", 150, 100)
    with pytest.raises(torch.OutOfMemoryError):
        gpu.take(51)
    gpu.take(49)
    with memory.aside():
        gpu.take(400)
        gpu.give(400)
    with pytest.raises(torch.OutOfMemoryError):
        gpu.take(2)
    memory.leave()
    assert gpu.fraction == 1


def test_a_cap_that_was_there_before_stays(gpu: Allocator) -> None:
    gpu.fraction = 0.25
    memory = DeviceMemory("cuda", 900, 0)
    assert gpu.fraction == 0.25
    memory.leave()
    assert gpu.fraction == 0.25


def test_on_the_cpu_nothing_is_counted() -> None:
    memory = DeviceMemory("cpu", 10, 0)
    with memory.aside():
        memory.begin()
    memory.leave()
    assert (memory.peak(), memory.most()) == (0, 0)


class Grows(DeviceMemory):
    """A device whose peak rises with every look at it."""

    looks = 0

    def peak(self) -> int:
        self.looks += 1
        return self.looks * 10**9


@pytest.mark.parametrize("fails", [False, True])
def test_the_last_word_on_the_peak_is_at_the_end_of_training(fails: bool, tmp_path: Path) -> None:
    """The optimizer's states of the first step are there in the second: its peak is the run's."""
    where, memory = context(tmp_path), Grows("cpu", None, 0)

    def stop(step: int) -> bool:
        if fails:
            raise torch.OutOfMemoryError("out of memory")
        return False

    where = type(where)(**{**vars(where), "memory": memory})
    with pytest.raises(OutOfMemory) if fails else nullcontext():
        train(random_llama(), batches(), SETTINGS, where, stop=stop)
    assert where.meter.total.peak_device_bytes == memory.looks * 10**9


def test_without_a_gpu_the_accounted_peak_stands(tmp_path: Path) -> None:
    _, _, meter = run(tmp_path)
    assert 0 < (meter.total.peak_device_bytes or 0) < 10**7


@pytest.mark.parametrize(("stages", "most", "undo", "attack"), [
    (("undo", "attack"), 500, 500, 100), (("attack",), 500, None, 500), (("undo", "attack"), 90, 80, 100),
])  # fmt: skip
def test_a_peak_outside_of_training_is_that_of_undoing(
    stages: tuple[str, ...], most: int, undo: int | None, attack: int
) -> None:
    meter, known = Meter(), {"undo": 80, "attack": 100}
    for stage in stages:
        with meter.stage(stage):
            meter.charge(Bill(peak_device_bytes=known[stage]))
    _charge_rest(meter, most)
    found: Any = {stage: bill.peak_device_bytes for stage, bill in meter.bills.items()}
    assert (found.get("undo"), found["attack"]) == (undo, attack)
