"""Energy counters: RAPL for the processor package, NVML for an NVIDIA device; joules since an arbitrary start."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")


class Energy:
    """Sums what the readable counters advanced since construction; `reason` says why there is none."""

    def __init__(self, device: str = "cpu", powercap: Path = POWERCAP) -> None:
        self.reason: str | None = None
        self._total = 0.0
        self._zones = [zone for zone in sorted(powercap.glob("intel-rapl:[0-9]*")) if _readable(zone)]
        self._zones = [zone for zone in self._zones if zone.name.count(":") == 1]  # packages; their parts are inside
        self._last = {zone: _joules(zone / "energy_uj") for zone in self._zones}
        self._device = _nvml(device)
        self._device_last = _device_joules(self._device)
        if not self._zones and self._device is None:
            self.reason = "no energy counter is readable on this machine"

    def read(self) -> float | None:
        """Joules since construction over all readable counters, or None."""
        if self.reason is not None:
            return None
        for zone in self._zones:
            now = _joules(zone / "energy_uj")
            step = now - self._last[zone]
            if step < 0:  # the counter wrapped around
                step += _joules(zone / "max_energy_range_uj")
            self._total += step
            self._last[zone] = now
        now = _device_joules(self._device)
        self._total += now - self._device_last
        self._device_last = now
        return self._total


def _readable(zone: Path) -> bool:
    try:
        _joules(zone / "energy_uj")
        _joules(zone / "max_energy_range_uj")
    except (OSError, ValueError):
        return False
    return True


def _joules(path: Path) -> float:
    return int(path.read_text()) / 1e6


def _nvml(device: str) -> Any:
    if not device.startswith("cuda"):
        return None
    try:
        pynvml = import_module("pynvml")  # of the optional package nvidia-ml-py
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(_uuid(device))
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:
        return None
    return handle


def _uuid(device: str) -> str:
    """What names a GPU for both: NVML numbers all of the machine, torch those that CUDA_VISIBLE_DEVICES leaves."""
    import torch

    from harness.meters.device_memory import cuda_index

    return f"GPU-{torch.cuda.get_device_properties(cuda_index(device)).uuid}"


def _device_joules(handle: Any) -> float:
    if handle is None:
        return 0.0
    return float(import_module("pynvml").nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
