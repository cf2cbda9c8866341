"""Where a record comes from: code, packages, machine, digests, seeds, times. No host name, no path, no environment."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import Field

from harness.settings import Settings

PACKAGES = ("torch", "transformers", "accelerate", "peft", "datasets", "lm_eval", "deepspeed", "bitsandbytes", "numpy",
            "optuna")  # fmt: skip
"""Packages that can change a number."""

Digest = str


class Code(Settings):
    """Which version of this project ran."""

    version: str | None = None
    """Version of the installed distribution; null when the code runs uninstalled."""
    commit: str | None = None
    """Commit of the checkout the code runs from; null when it is not a checkout."""
    dirty: bool | None = None
    """Whether tracked files differ from that commit; null when there is no commit."""


class Machine(Settings):
    """What it ran on."""

    cpu: str | None = None
    """Processor model, as the system names it."""
    cores: int | None = None
    """Logical cores this process may use."""
    memory_bytes: int | None = None
    """Physical memory."""
    platform: str = ""
    """Operating system and architecture."""
    python: str = ""
    """Python version."""
    threads: int | None = None
    """Threads of one matrix multiplication, as the caller knows them."""
    device: str | None = None
    """Accelerator, as the caller knows it; null is none."""


class Weights(Settings):
    """sha256 over the weights that were scored."""

    base: Digest | None = None
    """The untouched base."""
    locked: Digest | None = None
    """The locked model."""
    attacked: list[Digest] = Field(default_factory=list)
    """The attacked models, one a seed."""
    reference: list[Digest] = Field(default_factory=list)
    """The base after the reference attack, one a seed."""


class Provenance(Settings):
    """Everything that ties a record to code, data, weights and a machine."""

    code: Code = Code()
    """This project's code."""
    packages: dict[str, str | None] = Field(default_factory=dict)
    """Versions of the packages that can change a number; null is not installed."""
    machine: Machine = Machine()
    """The machine."""
    data: dict[str, Digest] = Field(default_factory=dict)
    """sha256 by data set name."""
    weights: Weights = Weights()
    """sha256 of the weights that were scored."""
    seeds: dict[str, list[int]] = Field(default_factory=dict)
    """Seeds by stage: lock, attack, reference."""
    knowledge: str | None = None
    """What the attacker knew of the lock: recipe, family, code or secret (never ranked)."""
    targets: list[str] = Field(default_factory=list)
    """Tensors or modules the attack trained, as resolved from the model in hand (invariant 3)."""
    started: str | None = None
    """UTC, ISO 8601."""
    finished: str | None = None
    """UTC, ISO 8601."""
    files: dict[str, Digest] = Field(default_factory=dict)
    """sha256 of the files beside the record, filled in when it is written."""


def utc_now() -> str:
    """The one clock of the records: UTC, ISO 8601, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def collect(
    *,
    started: str | None = None,
    finished: str | None = None,
    data: Mapping[str, Digest] | None = None,
    weights: Weights | None = None,
    seeds: Mapping[str, list[int]] | None = None,
    knowledge: str | None = None,
    targets: list[str] | None = None,
    threads: int | None = None,
    device: str | None = None,
) -> Provenance:
    """What this process knows about itself, and what the caller adds.

    Args:
        started: from `utc_now`, taken by the caller when the cell began.
        finished: from `utc_now`, taken by the caller when it ended.
        data: sha256 by data set name.
        weights: digests of the models that were scored.
        seeds: seeds by stage.
        knowledge: what the attacker knew of the lock.
        targets: tensors or modules the attack trained.
        threads: threads of one matrix multiplication.
        device: the accelerator's name.
    """
    return Provenance(code=code(), packages=packages(), machine=machine(threads, device), data=dict(data or {}),
                      weights=weights or Weights(), seeds=dict(seeds or {}), knowledge=knowledge,
                      targets=list(targets or ()), started=started, finished=finished)  # fmt: skip


def packages() -> dict[str, str | None]:
    """Installed versions by name, without importing anything."""
    return {name: _version(name) for name in PACKAGES}


def code(folder: Path | None = None, run: Callable[[list[str]], str | None] | None = None) -> Code:
    """Version, and the commit if the package lies in a checkout of its own.

    Args:
        folder: where the code is; default: this package.
        run: runs git with arguments and gives its output, None on failure; for tests.
    """
    root = folder or Path(__file__).parents[2]
    git = run or (lambda arguments: _git(root, arguments))
    # An installed wheel may lie inside somebody's checkout; only a tree that tracks this very file speaks for it.
    if not (root / ".git").exists() or git(["ls-files", "--error-unmatch", "harness/records/provenance.py"]) is None:
        return Code(version=_version("lockbench"))
    commit, changes = git(["rev-parse", "HEAD"]), git(["status", "--porcelain", "--untracked-files=no"])
    dirty = None if commit is None or changes is None else bool(changes)
    return Code(version=_version("lockbench"), commit=commit, dirty=dirty)


def machine(threads: int | None = None, device: str | None = None) -> Machine:
    """What the operating system says about this machine; nothing that names it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    system = f"{platform.system()} {platform.machine()}"
    return Machine(cpu=_cpu(), cores=cores, memory_bytes=_memory(), platform=system, threads=threads, device=device,
                   python=platform.python_version())  # fmt: skip


def accelerator(device: str) -> str | None:
    """The name of a CUDA device, as the driver gives it; None for the CPU."""
    if not device.startswith("cuda"):
        return None
    import torch

    return str(torch.cuda.get_device_name(device))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git(root: Path, arguments: list[str]) -> str | None:
    try:
        command = ["git", "-C", str(root), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):  # no git here: the version has to do
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu() -> str | None:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model", "Hardware"):
                return value.strip()
    return platform.processor() or None


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on every system
        return None
