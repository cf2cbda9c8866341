"""Cells that cost next to nothing, for tests and benchmarks of the machinery around them; on PYTHONPATH, not installed.

`nudge` moves every weight a little by its seed and can be told to misbehave; `sums` scores sums over the weights. Both
go through the real loading, cache, scoring and record. The scores mean nothing.
"""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from harness.plugins import Attack, AttackContext, Attacked, ItemScore, Released, Settings, Split, Task

ITEMS = 8


class NudgeSettings(Settings):
    """Knobs of the attack that costs nothing."""

    size: float = 1e-3
    """Of the move."""
    number: int = 0
    """Tells cells apart."""
    sleep: float = 0.0
    """Seconds that it takes more than it must."""
    fault: Literal["", "raise", "hang", "die", "die_once", "full", "leak"] = ""
    """What goes wrong, on the locked model."""
    notes: str = ""
    """File that gets a line an attack made."""


class Nudge(Attack):
    """Moves every weight a little (for tests of the machinery)."""

    Settings = NudgeSettings
    settings: NudgeSettings

    def attack(self, released: Released, context: AttackContext) -> Attacked:
        """See `harness.plugins.Attack`."""
        import torch

        from harness.bill import Bill
        from harness.training import TrainResult

        time.sleep(self.settings.sleep)
        if released.lock is not None:
            self._misbehave(context.folder)
        generator = torch.Generator().manual_seed(context.seed)
        names = []
        with torch.no_grad(), context.meter.stage("attack"):
            for name, weight in released.model.named_parameters():
                weight.add_(torch.randn(weight.shape, generator=generator), alpha=self.settings.size)
                names.append(name)
            context.meter.charge(Bill(steps=1, tokens=1, forward_flops=1.0))
        if self.settings.notes:
            with Path(self.settings.notes).open("a") as notes:
                notes.write(f"{self.settings.number} {context.seed}\n")
        return Attacked(model=released.model, targets=names,
                        training=TrainResult(steps=1, losses=[2.0, 1.0], trained=names))  # fmt: skip

    def _misbehave(self, folder: Path) -> None:
        fault, mark = self.settings.fault, folder / "died"
        if fault == "raise":
            raise RuntimeError("a plug-in's own bug")
        if fault == "full":
            raise OSError(28, "No space left on device")
        if fault == "leak":
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
            kept = []
            while True:
                kept.append(bytearray(1 << 20))
        if fault == "hang":
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
            time.sleep(3600)
        if fault == "die" or (fault == "die_once" and not mark.exists()):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class SumsSettings(Settings):
    """The task has no knobs."""


class Sums(Task):
    """Sums over the weights (for tests of the machinery)."""

    Settings = SumsSettings
    metric = "sum"
    unit = "sum"

    def train_texts(self) -> Sequence[str]:
        """See `harness.plugins.Task`."""
        return ["one", "two"]

    def score(self, released: Released, split: Split, *, limit: int | None = None) -> list[ItemScore]:
        """See `harness.plugins.Task`."""
        total = sum(float(weight.double().abs().sum()) for weight in released.model.parameters())
        return [ItemScore(metric="sum", item=f"{split}-{index}", score=(total * (index + 1)) % 1.0)
                for index in range(ITEMS)]  # fmt: skip

    def digest(self) -> str:
        """See `harness.plugins.Task`."""
        return "0" * 64
