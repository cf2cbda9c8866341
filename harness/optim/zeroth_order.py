"""Training without gradients (MeZO): the loss at two points along a random direction says how far to go along it.

Malladi et al., "Fine-Tuning Language Models with Just Forward Passes" (2023), Algorithm 1: nothing is kept for
backward, there is no gradient and no optimizer state. Directions are drawn again from their seed when they are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from harness.loop.engine import Batch, LossFn, make_accelerator
from harness.loop.passes import evaluated
from harness.meters.memory import module_bytes
from harness.train_settings import TrainSettings

if TYPE_CHECKING:
    from harness.plugins import Context


@dataclass(frozen=True, kw_only=True)
class ZerothOrder:
    """How slopes are estimated."""

    perturbation: float = 1e-3
    """Distance of the two points from the weights, over the length of a standard normal direction."""
    directions: int = 1
    """Random directions a step; their steps are averaged."""


@dataclass
class Slopes:
    """The proof that it trained, in the words of gradients: every tensor moves along every direction with a slope."""

    missing: set[str] = field(default_factory=set)
    """All trained tensors, until a step went along a direction with a slope other than 0."""
    nonfinite: set[str] = field(default_factory=set)
    """All trained tensors, once a slope was inf or nan."""


class ZerothOrderEngine:
    """The methods of `harness.loop.engine.Engine` by forward passes alone."""

    evaluations = most_evaluations = 1

    def __init__(
        self,
        model: torch.nn.Module,
        named: Sequence[tuple[str, torch.nn.Parameter]],
        settings: TrainSettings,
        context: Context,
        loss_fn: LossFn,
        how: ZerothOrder,
    ) -> None:
        self._accelerator = make_accelerator(context.device, bf16=context.bf16)
        self.device: torch.device = self._accelerator.device
        if any(p.device != self.device for p in model.parameters()):
            model.to(self.device)
        self._model, self._loss_fn, self._settings, self._how = model, loss_fn, settings, how
        self._names, self._params = [name for name, _ in named], [p for _, p in named]
        self.optimizer: torch.optim.Optimizer = torch.optim.SGD(self._params, lr=settings.learning_rate)  # no state
        self.watch = Slopes(missing=set(self._names))
        self._seeds: list[int] = []
        self._slopes: list[float] = []

    @torch.no_grad()
    def forward(self, batch: Batch) -> torch.Tensor:
        """Mean of the losses at all points, dropout off; the slopes are added up over the micro-batches of a step."""
        if not self._seeds:  # from the run's own generator, whose state a checkpoint keeps
            self._seeds = [int(torch.randint(2**62, ())) for _ in range(self._how.directions)]
            self._slopes = [0.0] * len(self._seeds)
        eps, parts = self._how.perturbation, self._settings.gradient_accumulation_steps
        total = torch.zeros((), device=self.device)
        with evaluated(self._model):
            for index, seed in enumerate(self._seeds):
                self._move(seed, eps)
                up = self._loss(batch)
                self._move(seed, -2 * eps)
                down = self._loss(batch)
                self._move(seed, eps)
                self._slopes[index] += (float(up) - float(down)) / (2 * eps * parts)
                total += (up + down) / (2 * len(self._seeds))
        return total

    def _loss(self, batch: Batch) -> torch.Tensor:
        """One region of autocast a point: within one it keeps the bf16 copies of weights that have moved since."""
        with self._accelerator.autocast():
            return self._loss_fn(self._model, batch).float()

    def backward(self, loss: torch.Tensor) -> None:
        """Nothing: the slopes are known already."""

    @torch.no_grad()
    def update(self, learning_rate: float) -> bool:
        """Go along every direction against its slope; False when one is not finite. `max_grad_norm` has no meaning."""
        seeds, slopes = self._seeds, torch.tensor(self._slopes)
        self._seeds, self._slopes = [], []
        if not bool(slopes.isfinite().all()):
            self.watch.nonfinite |= set(self._names)
            return False
        if learning_rate and bool(slopes.any()):
            self.watch.missing.clear()
        if decay := learning_rate * self._settings.weight_decay:
            for p in self._params:
                p.mul_(1 - decay)
        for seed, slope in zip(seeds, slopes.tolist(), strict=True):
            self._move(seed, -learning_rate * slope / len(seeds))
        return True

    def resident_bytes(self) -> int:
        """Weights and buffers; the one tensor's direction that exists at a time counts among the activations."""
        return module_bytes(self._model)

    def gradient_bytes(self) -> int:
        """None."""
        return 0

    def optimizer_bytes(self) -> int:
        """None."""
        return 0

    def offloaded_bytes(self) -> int:
        """None."""
        return 0

    def gathered(self) -> AbstractContextManager[None]:
        """See `Engine`."""
        return nullcontext()

    def close(self) -> None:
        """See `Engine`."""

    def _move(self, seed: int, distance: float) -> None:
        """Add `distance` times the direction of `seed` to the weights, one tensor's direction at a time."""
        generator = torch.Generator(self.device).manual_seed(seed)
        for p in self._params:
            direction = torch.randn(p.shape, generator=generator, device=self.device, dtype=p.dtype)
            p.add_(direction, alpha=distance)
