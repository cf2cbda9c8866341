"""What a run keeps so that a kill costs little: weights, optimizer, random numbers, counters; and their way back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from harness.loop.checkpoint import Checkpoint, optimizer_state, restore_optimizer
from harness.loop.engine import Engine


class Snapshots:
    """A run's state, to a checkpoint and back.

    Args:
        checkpoint: where it is kept.
        model: that trains.
        engine: that trains it.
        named: the trained parameters, by name.
    """

    def __init__(
        self, checkpoint: Checkpoint, model: torch.nn.Module, engine: Engine,
        named: Sequence[tuple[str, torch.nn.Parameter]],
    ) -> None:  # fmt: skip
        self._checkpoint, self._model, self._engine, self._named = checkpoint, model, engine, named

    def save(self, step: int, counters: dict[str, Any]) -> None:
        """Keep the state after `step`, and `counters` (JSON) with it."""
        tensors, numbers = optimizer_state(self._engine.optimizer, self._names())
        for name, value in self._kept():
            tensors[f"model/{name}"] = value
        tensors["random/cpu"] = torch.get_rng_state()
        if self._engine.device.type == "cuda":
            tensors["random/cuda"] = torch.cuda.get_rng_state(self._engine.device)
        watch = self._engine.watch
        self._checkpoint.save(step, tensors, {**counters, "optimizer": numbers, "missing": sorted(watch.missing),
                                              "nonfinite": sorted(watch.nonfinite)})  # fmt: skip

    def restore(self) -> dict[str, Any] | None:
        """Put the newest state back; the counters that were kept with it, or None where there is none of this run."""
        found = self._checkpoint.load()
        if found is None:
            return None
        tensors, scalars = found
        with torch.no_grad():
            for name, value in self._kept():
                value.copy_(tensors[f"model/{name}"])
        restore_optimizer(self._engine.optimizer, self._names(), tensors, scalars["optimizer"])
        torch.set_rng_state(tensors["random/cpu"])
        if "random/cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random/cuda"], self._engine.device)
        self._engine.watch.missing, self._engine.watch.nonfinite = set(scalars["missing"]), set(scalars["nonfinite"])
        return scalars

    def remove(self) -> None:
        """Delete it: the run is complete."""
        self._checkpoint.remove()

    def _kept(self) -> list[tuple[str, torch.Tensor]]:
        return [*((name, p) for name, p in self._named), *self._model.named_buffers()]

    def _names(self) -> dict[torch.Tensor, str]:
        return {p: name for name, p in self._named}
