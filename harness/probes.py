"""What this machine can run: one cheap check a name, each with one sentence when the answer is no. Imports no torch."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from harness.errors import UsageError
from harness.settings import unknown


def check(name: str) -> str | None:
    """None when `name` can be used here, else the reason, in one sentence.

    Raises:
        UsageError: there is no such probe.
    """
    if name not in PROBES:
        raise UsageError(unknown(name, PROBES, "probe"))
    return PROBES[name]()


def _installed(module: str, extra: str) -> str | None:
    if find_spec(module) is None:
        return f"{module} is not installed (pip install 'lockbench[{extra}]')"
    return None


def _deepspeed() -> str | None:
    """The offload attacker: DeepSpeed builds its CPU optimizer at first use, so a compiler and ninja are needed."""
    if reason := _installed("deepspeed", "deepspeed"):
        return reason
    if find_spec("ninja") is None and shutil.which("ninja") is None:
        return "ninja is not installed, which deepspeed needs to build its optimizer (pip install ninja)"
    compiler = os.environ.get("CXX", "c++").split()[0]
    if shutil.which(compiler) is None:
        return f"there is no C++ compiler ({compiler}), which deepspeed needs to build its optimizer"
    return None


def gpu_files() -> bool:
    """Whether there may be a GPU, by the device files of its driver: an answer before torch is imported."""
    return any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg"))


def _cuda() -> str | None:
    import torch

    if torch.cuda.is_available():
        return None
    return "torch is built without CUDA" if torch.version.cuda is None else "torch sees no CUDA device"


def _bf16() -> str | None:
    """Native bf16 arithmetic; emulated bf16 is slower than fp32."""
    import torch

    if torch.cuda.is_available():
        major, _ = torch.cuda.get_device_capability()
        return None if major >= 8 else "the CUDA device is older than Ampere and has no native bf16"
    capabilities = torch.cpu.get_capabilities()
    if any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "amx_tile", "bf16", "sve_bf16")):
        return None
    return "the CPU has no bf16 instructions (AVX512-BF16, AMX or ARM BF16)"


def _online() -> str | None:
    """Only a name look-up and a TCP connection, and only when asked: this is the one probe that touches the network."""
    if os.environ.get("HARNESS_ONLINE") != "1":
        return "the network is off (HARNESS_ONLINE=1 turns it on)"
    try:
        socket.create_connection(("huggingface.co", 443), timeout=3).close()
    except OSError as error:
        return f"huggingface.co cannot be reached: {error}"
    return None


def _pack() -> str | None:
    given = os.environ.get("HARNESS_DATA")
    if not given:
        return "HARNESS_DATA does not name the data pack's folder"
    if not (Path(given) / "MANIFEST.md").is_file():
        return f"HARNESS_DATA={given} holds no data pack (no MANIFEST.md)"
    return None


def _energy() -> str | None:
    from harness.meters.energy import Energy

    return Energy("cpu" if _cuda() else "cuda").reason


PROBES: dict[str, Callable[[], str | None]] = {
    "cuda": _cuda,
    "bf16": _bf16,
    "deepspeed": _deepspeed,
    "bitsandbytes": lambda: _installed("bitsandbytes", "quant"),
    "gguf": lambda: _installed("gguf", "gguf"),
    "ray": lambda: _installed("ray", "ray"),
    "optuna": lambda: _installed("optuna", "search"),
    "wandb": lambda: _installed("wandb", "track"),
    "tensorboard": lambda: _installed("tensorboard", "track"),
    "mlflow": lambda: _installed("mlflow", "track"),
    "argcomplete": lambda: _installed("argcomplete", "completion"),
    "mkdocs": lambda: _installed("mkdocs", "docs"),
    "matplotlib": lambda: _installed("matplotlib", "report"),
    "pack": _pack,
    "online": _online,
    "energy": _energy,
}
"""By name; `harness doctor` shows them all, an attack's `requires` names some."""

USES = {
    "cuda": "large models", "bf16": "speed from 20 M parameters", "gguf": "harness fetch without a hub",
    "optuna": "--set search.trials", "wandb": "--report_to", "tensorboard": "--report_to", "mlflow": "--report_to",
    "argcomplete": "harness completion", "ray": "harness matrix --executor ray", "mkdocs": "the documentation site",
    "matplotlib": "figures",
    "pack": "most tasks, stories260k", "online": "models from the hub", "energy": "joules on the bills",
}  # fmt: skip
"""What each is for, where no attack says so."""
