"""What a plug-in under test is given: contexts with a fresh meter, a task, a corpus, and no network.

They are on the CPU, or on the device that the variable `HARNESS_TEST_DEVICE` names (`cuda`).
"""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.plugins import AttackContext, ItemScore, LockContext, Released, Split, Task
from harness.settings import Settings

if TYPE_CHECKING:
    import pytest

_TEXT = "the lock holds the door and the door holds the house while the wind is blowing over the old hill"


def documents(split: str) -> list[str]:
    """Text with something to predict, for locks that distil or tune: another for `train` than for `heldout`."""
    words, step = _TEXT.split(), 7 if split == "train" else 5
    return [" ".join(words[(i * step + j * j) % len(words)] for j in range(60)) for i in range(12)]


class Rhyme(Task):
    """Sentences of one pattern: a few steps lower the loss on them."""

    Settings = Settings
    metric, unit = "pattern", "none"

    def train_texts(self) -> list[str]:
        """Sixty sentences."""
        return [f"the cat number {i} sat on the mat and ate {i * 7 % 13} fish. " for i in range(60)]

    def score(self, released: Released, split: Split, *, limit: int | None = None) -> list[ItemScore]:
        """Never: an attack trains, and the benchmark scores."""
        raise AssertionError("attacks do not score")

    def digest(self) -> str:
        """A constant."""
        return "0" * 64


def attack_context(folder: Path | None = None, *, budget: str = "", seed: int = 0, probe: Any = None) -> AttackContext:
    """What an attack gets: `Rhyme` as the task, an own folder and a fresh meter.

    Args:
        folder: scratch; default: a new temporary one.
        budget: as for `--budget`, for example `steps=4`.
        seed: the attack's.
        probe: scores a model for the trajectory.
    """
    from harness.budget import Budget
    from harness.meters.meter import Meter

    return AttackContext(seed=seed, device=device_under_test(), folder=folder or own_folder(),
                         meter=Meter(Budget.from_text(budget)), task=Rhyme(Settings()), probe=probe)  # fmt: skip


def lock_context(folder: Path | None = None, *, seed: int = 0) -> LockContext:
    """What a lock gets: `documents` as the corpus, an own folder and a fresh meter."""
    from harness.meters.meter import Meter

    where = folder or own_folder()
    return LockContext(seed=seed, device=device_under_test(), folder=where, meter=Meter(), corpus=documents)


def device_under_test() -> str:
    """Where plug-ins are tried: `HARNESS_TEST_DEVICE`, else the CPU."""
    return os.environ.get("HARNESS_TEST_DEVICE", "cpu")


def own_folder() -> Path:
    """A fresh folder that goes when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="lockbench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, a connection to anything but this machine is an error (design invariant 9)."""
    real = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(
            ("127.", "::1", "localhost")
        ):
            raise AssertionError(f"the network is off in tests, but something connects to {address}")
        real(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
