"""The meter: stages do not overlap, limits hold over all of them, energy is read where there is a counter."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.bill import Bill
from harness.budget import Budget
from harness.errors import OutOfMemory, OverBudget
from harness.meters import meter as module
from harness.meters.energy import Energy
from harness.meters.meter import Meter


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that only the test moves."""
    clock = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    return clock


def test_a_nested_stage_takes_its_time_out_of_the_outer_one(now: list[float]) -> None:
    meter = Meter()
    now[0] += 50  # no stage is open
    with meter.stage("attack"):
        now[0] += 1
        with meter.stage("undo"):
            now[0] += 10
            with meter.pause():
                now[0] += 100
                with meter.pause():
                    now[0] += 100
        now[0] += 2
        assert meter.current == "attack"
    now[0] += 50
    assert {stage: bill.seconds for stage, bill in meter.bills.items()} == {"attack": 3, "undo": 10}
    assert meter.total.seconds == 13


def test_an_open_stage_is_on_the_bill_up_to_now(now: list[float]) -> None:
    meter = Meter(Budget(seconds=10))
    with meter.stage("search"):
        now[0] += 4
        assert meter.total.seconds == 4
        assert meter.seconds_left() == meter.remaining().seconds == 6
        now[0] += 7
        assert meter.remaining().seconds == 0
        with pytest.raises(OverBudget, match=r"used 11 seconds, budget\.seconds is 10"):
            meter.check()


def test_a_stage_that_fails_is_billed_all_the_same(now: list[float]) -> None:
    meter = Meter()

    def fail() -> None:
        with meter.stage("undo"):
            now[0] += 5
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert meter.bills["undo"].seconds == 5
    assert meter.current == "attack"


def test_counts_add_up_and_peaks_do_not() -> None:
    meter = Meter(Budget(steps=10, tokens=1000, flops=1e6))
    for stage, peak in (("search", 7), ("attack", 5), ("attack", 6)):
        with meter.stage(stage):
            meter.charge(Bill(steps=2, tokens=100, forward_flops=10, backward_flops=20, peak_device_bytes=peak))
    assert meter.bills["attack"].peak_device_bytes == 6
    assert meter.total.peak_device_bytes == 7
    left = meter.remaining()
    assert (left.steps, left.tokens, left.flops, left.seconds) == (4, 700, 1e6 - 90, None)
    meter.check()
    meter.charge(Bill(tokens=701))
    assert meter.remaining().tokens == 0
    with pytest.raises(OverBudget, match="tokens"):
        meter.check()


def test_memory_over_budget_is_out_of_memory_and_stays_on_the_bill() -> None:
    meter = Meter(Budget(memory=100))
    meter.charge(Bill(peak_device_bytes=100))
    with pytest.raises(OutOfMemory, match="needs 101 bytes"):
        meter.charge(Bill(peak_device_bytes=101))
    assert meter.total.peak_device_bytes == 101


def test_host_memory_is_recorded() -> None:
    meter = Meter()
    with meter.stage("attack"):
        pass
    assert (meter.bills["attack"].peak_host_bytes or 0) > 10 * 2**20


def _zone(folder: Path, microjoules: int, wraps_at: int = 1_000_000_000) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "energy_uj").write_text(str(microjoules))
    (folder / "max_energy_range_uj").write_text(str(wraps_at))
    return folder


def test_energy_adds_packages_and_survives_a_wrap(tmp_path: Path) -> None:
    first = _zone(tmp_path / "intel-rapl:0", 5_000_000)
    _zone(tmp_path / "intel-rapl:0:0", 1)  # a part of the first package: counted inside it
    second = _zone(tmp_path / "intel-rapl:1", 999_000_000)
    energy = Energy(powercap=tmp_path)
    assert (energy.read(), energy.reason) == (0.0, None)
    _zone(first, 7_000_000)
    _zone(second, 500_000)
    assert energy.read() == pytest.approx(2.0 + 1.5)


def test_energy_is_null_with_a_reason_where_nothing_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "intel-rapl:0").mkdir()
    energy = Energy(powercap=tmp_path)
    assert energy.read() is None
    assert energy.reason


def test_energy_of_each_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zone = _zone(tmp_path / "intel-rapl:0", 0)
    monkeypatch.setattr(module, "Energy", lambda device: Energy(device, tmp_path))
    meter = Meter()
    for stage, end in (("undo", 3_000_000), ("attack", 4_000_000)):
        with meter.stage(stage):
            _zone(zone, end - 500_000)
            with meter.pause():
                _zone(zone, end)
    assert {stage: bill.energy_joules for stage, bill in meter.bills.items()} == {"undo": 2.5, "attack": 0.5}
    assert meter.total.energy_joules == 3.0
    assert meter.total.energy_reason is None
