"""Training by L-BFGS: the engine that evaluates the loss of a step's batch as often as its line search asks.

One step is a few iterations on one batch. Pairs of positions and gradients come from within a batch only: between two
batches the change of the gradient is mostly noise. All evaluations are counted, and a plan allows each step the most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from harness.errors import UsageError
from harness.loop.engine import Batch, LossFn, PlainEngine
from harness.optim.curvature import EVALUATIONS
from harness.optim.optimizers import expected_state_bytes
from harness.train_settings import TrainSettings

if TYPE_CHECKING:
    from harness.plugins import Context

SEARCH = 10
"""Vectors of all trained numbers that one line search holds at most, beside the optimizer's state."""
_REJECTED = 1e10
"""The loss of a point where it is not finite: the search turns back, and its interpolation does not overflow."""


class LineSearchEngine(PlainEngine):
    """The plain engine, which keeps the batches of a step to evaluate them again."""

    most_evaluations = EVALUATIONS + 1  # torch begins a search with what is left of them, and it may take one more

    def __init__(
        self,
        model: torch.nn.Module,
        named: Sequence[tuple[str, torch.nn.Parameter]],
        settings: TrainSettings,
        context: Context,
        loss_fn: LossFn,
        lr_scale: Mapping[str, float],
    ) -> None:
        """Raises UsageError for what L-BFGS does not have: weight decay, rates of single tensors."""
        if settings.weight_decay:
            raise UsageError(f"weight_decay={settings.weight_decay}: optim=lbfgs has none, set weight_decay=0")
        if any(scale != 1 for scale in lr_scale.values()):
            raise UsageError("optim=lbfgs has one rate for all tensors: it cannot slow single ones (lr_scale)")
        super().__init__(model, named, settings, context, loss_fn, {})
        self._micros: list[tuple[Batch, list[torch.Tensor]]] = []
        self._loss = 0.0

    def forward(self, batch: Batch) -> torch.Tensor:
        """See `Engine`."""
        self._micros.append((batch, self._random_state()))
        loss = super().forward(batch)
        self._loss += float(loss.detach()) / self._settings.gradient_accumulation_steps
        return loss

    def update(self, learning_rate: float) -> bool:
        """See `Engine`; `max_grad_norm` has no meaning: a clipped gradient would not be that of the loss."""
        finite = self.watch.clip(0)
        self.evaluations = 1
        if finite:
            self._set_rates(learning_rate)
            self._forget_the_last_batch()
            after = self._random_state()
            self.optimizer.step(self._closure())
            self._set_random_state(after)
            self._stepped = True
        self._micros, self._loss = [], 0.0
        self.optimizer.zero_grad(set_to_none=True)
        return finite

    def resident_bytes(self) -> int:
        """See `Engine`; with the vectors of a line search."""
        return super().resident_bytes() + SEARCH * self.gradient_bytes()

    def optimizer_bytes(self) -> int:
        """See `Engine`; the history, which fills up in the first steps, counts as full."""
        return max(expected_state_bytes(self._settings.optim, self._params), super().optimizer_bytes())

    def _closure(self) -> Any:
        first = True

        def closure() -> float:
            nonlocal first
            if not first:
                self._evaluate()
            first = False
            return self._loss

        return closure

    def _evaluate(self) -> None:
        """Loss and gradients of the step's batches where the weights are now, with the random numbers of the first."""
        self.evaluations += 1
        self.optimizer.zero_grad(set_to_none=True)
        again, self._micros, self._loss = self._micros, [], 0.0
        for batch, state in again:
            self._set_random_state(state)
            self.backward(self.forward(batch))
        grads = [p.grad for p in self._params if p.grad is not None]
        if not torch.tensor(self._loss).isfinite() or not all(bool(g.isfinite().all()) for g in grads):
            torch._foreach_zero_(grads)
            self._loss = _REJECTED

    def _forget_the_last_batch(self) -> None:
        """Let the gradient before this one be this one: their difference, 0, is then no pair of the history."""
        optimizer: Any = self.optimizer
        for state in optimizer.state.values():
            if state.get("prev_flat_grad") is not None:
                state["prev_flat_grad"].copy_(optimizer._gather_flat_grad())

    def _random_state(self) -> list[torch.Tensor]:
        cuda = [torch.cuda.get_rng_state(self.device)] if self.device.type == "cuda" else []
        return [torch.get_rng_state(), *cuda]

    def _set_random_state(self, states: list[torch.Tensor]) -> None:
        torch.set_rng_state(states[0])
        for state in states[1:]:
            torch.cuda.set_rng_state(state, self.device)
