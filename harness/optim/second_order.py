"""Training with an estimate of the Hessian's diagonal (Sophia, AdaHessian): the engine beside the plain one.

Every micro-batch differentiates its gradient once more, along one random direction z of +-1 (Hutchinson's probe):
`z * (H z)` is the diagonal in expectation. Each step costs the same, so a step's FLOPs are still counted once. The
library's own estimate is not used: it would need the graph of the gradients to live through the clip.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from harness.errors import UsageError
from harness.loop.engine import Batch, LossFn, PlainEngine
from harness.optim.curvature import SOPHIA_GAMMA
from harness.train_settings import TrainSettings

if TYPE_CHECKING:
    from harness.plugins import Context

_ONCE = ("differentiate twice", "derivative for")
"""In torch's messages where an operation has no second derivative."""


class SecondOrderEngine(PlainEngine):
    """The plain engine, whose backward also adds up `z * (H z)`; the estimates are part of the optimizer's state."""

    def __init__(
        self,
        model: torch.nn.Module,
        named: Sequence[tuple[str, torch.nn.Parameter]],
        settings: TrainSettings,
        context: Context,
        loss_fn: LossFn,
        lr_scale: Mapping[str, float],
    ) -> None:
        super().__init__(model, named, settings, context, loss_fn, lr_scale)
        self._named = list(named)
        self._diagonal = {p: torch.zeros_like(p, requires_grad=False) for p in self._params}
        self._checked = False
        self._scale = SOPHIA_GAMMA if settings.optim == "sophia" else 1.0

    def forward(self, batch: Batch) -> torch.Tensor:
        """See `Engine`."""
        with twice_differentiable(self._settings.optim):
            return super().forward(batch)

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients and the estimates of `loss / gradient_accumulation_steps`."""
        loss = loss / self._settings.gradient_accumulation_steps
        with twice_differentiable(self._settings.optim):
            grads = torch.autograd.grad(loss, self._params, create_graph=True, allow_unused=True)
            reached = [(p, g) for p, g in zip(self._params, grads, strict=True) if g is not None]
            self._check_once([g for _, g in reached])
            curved = [(p, g, _signs(p)) for p, g in reached if g.requires_grad]
            products: Sequence[torch.Tensor | None] = torch.autograd.grad(
                [g for _, g, _ in curved], [p for p, _, _ in curved], [z for _, _, z in curved], allow_unused=True
            ) if curved else ()  # fmt: skip
        for (p, _, z), product in zip(curved, products, strict=True):
            if product is not None:
                self._diagonal[p].addcmul_(z, product, value=self._scale)
        owned: set[int] = set()
        for p, g in reached:
            _add_gradient(p, g.detach(), owned)

    def update(self, learning_rate: float) -> bool:
        """See `Engine`; the step is skipped, and the tensor named, for an estimate that is not finite too."""
        known = torch.stack([self._diagonal[p].isfinite().all() for p in self._params]).tolist()  # one wait
        bad = {name for (name, _), finite in zip(self._named, known, strict=True) if not finite}
        self.watch.nonfinite |= bad
        if bad:
            self.watch.clip(0)
            self.optimizer.zero_grad(set_to_none=True)
        finite = not bad and super().update(learning_rate)
        torch._foreach_zero_(list(self._diagonal.values()))
        return finite

    def _check_once(self, grads: Sequence[torch.Tensor]) -> None:
        """An autograd function that is differentiable once would leave its share of the curvature out, silently."""
        nodes: list[Any] = [] if self._checked else [g.grad_fn for g in grads]
        seen: set[Any] = set()
        while nodes:
            node = nodes.pop()
            if node is None or node in seen:
                continue
            if node.name() == "torch::autograd::Error":
                raise RuntimeError("cannot differentiate twice a function that is marked once_differentiable")
            seen.add(node)
            nodes += [following for following, _ in node.next_functions]
        self._checked = True

    def _step(self) -> None:
        if self._settings.optim == "adahessian":
            for diagonal in self._diagonal.values():
                _average(diagonal)
        step: Any = self.optimizer.step
        step(hessian=[self._diagonal[p] for group in self.optimizer.param_groups for p in group["params"]])


@contextmanager
def twice_differentiable(optim: str) -> Iterator[None]:
    """Inside, attention takes torch's plain implementation, because the fused ones have no second derivative.

    Raises:
        UsageError: something else of the model has none; names the optimizer that needs it.
    """
    with sdpa_kernel(SDPBackend.MATH):
        try:
            yield
        except (RuntimeError, NotImplementedError) as error:
            if not any(text in str(error) for text in _ONCE):
                raise
            raise UsageError(f"optim={optim}: this model cannot be differentiated twice ({error})") from error


def _average(diagonal: torch.Tensor) -> None:
    """AdaHessian's spatial averaging: what feeds one output of a matrix has one size of curvature.

    An entry whose one estimate happens to be near 0 would otherwise be divided by it.
    """
    if diagonal.ndim > 1:
        diagonal.copy_(diagonal.abs().flatten(1).mean(1).view(-1, *[1] * (diagonal.ndim - 1)).expand_as(diagonal))


def _signs(p: torch.Tensor) -> torch.Tensor:
    """Independent +1 or -1, from the run's own generator, whose state a checkpoint keeps."""
    return torch.empty_like(p, requires_grad=False).bernoulli_(0.5).mul_(2).sub_(1)


def _add_gradient(p: torch.Tensor, grad: torch.Tensor, owned: set[int]) -> None:
    """What autograd does to `.grad`: one gradient may be that of two tensors, or a single number spread out."""
    if p.grad is not None:
        p.grad.add_(grad)
        return
    address = grad.untyped_storage().data_ptr()
    p.grad = grad.clone(memory_format=torch.contiguous_format) if address in owned or not grad.is_contiguous() else grad
    owned.add(address)
