"""How one optimizer step is run: the plain engine, on accelerate. The DeepSpeed engine has the same methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import torch

from harness.errors import UsageError
from harness.loop.gradients import GradientWatch
from harness.meters.memory import module_bytes
from harness.optim.curvature import HESSIAN_DIAGONAL, UNIT
from harness.optim.optimizers import build_optimizer, expected_state_bytes, scale_rates, state_bytes
from harness.train_settings import TrainSettings

if TYPE_CHECKING:
    from harness.plugins import Context

Batch = dict[str, torch.Tensor]
LossFn = Callable[[torch.nn.Module, Batch], torch.Tensor]


class Watch(Protocol):
    """What is known of the gradients so far."""

    missing: set[str]
    nonfinite: set[str]


class Engine(Protocol):
    """Forward, backward and update; and what they hold on the device."""

    device: torch.device
    optimizer: torch.optim.Optimizer
    evaluations: int
    """Passes over the step's batches that the last update came to, the loop's own included."""
    most_evaluations: int
    """The most that a step may come to: what a budget must allow it."""

    @property
    def watch(self) -> Watch:
        """Which tensors never had a gradient, and which had one that was not finite."""

    def forward(self, batch: Batch) -> torch.Tensor:
        """The scalar loss of a micro-batch that is on the device."""

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of `loss / gradient_accumulation_steps`."""

    def update(self, learning_rate: float) -> bool:
        """Clip and step; False when a gradient was not finite and the step was skipped. Clears the gradients."""

    def resident_bytes(self) -> int:
        """Weights, buffers and gradients on the device."""

    def gradient_bytes(self) -> int:
        """Gradients of all trained tensors, wherever they live."""

    def optimizer_bytes(self) -> int:
        """Optimizer state, wherever it lives: expected before the first step, real after."""

    def offloaded_bytes(self) -> int:
        """The part of `optimizer_bytes` that is not on the device."""

    def gathered(self) -> AbstractContextManager[None]:
        """Inside, the model holds its full weights."""

    def close(self) -> None:
        """Release everything; the plain model holds the trained weights."""


def make_accelerator(device: str, *, bf16: bool, **options: Any) -> Any:
    """A fresh `accelerate.Accelerator`; accelerate's process-wide state is reset here and nowhere else."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    return Accelerator(mixed_precision="bf16" if bf16 else "no", cpu=device == "cpu", **options)


def to_master_weights(model: torch.nn.Module, *, bf16: bool) -> None:
    """Make every trained tensor fp32 (half-precision weights would round small updates away).

    Without autocast the frozen half-precision tensors follow, because the products would not fit together.
    """
    half = (torch.bfloat16, torch.float16)
    for p in model.parameters():
        if p.dtype in half and (p.requires_grad or not bf16):
            p.data = p.data.float()
    for buffer in model.buffers():
        if buffer.dtype in half and not bf16:
            buffer.data = buffer.data.float()


class PlainEngine:
    """One process, one device, autocast by accelerate."""

    evaluations = most_evaluations = 1

    def __init__(
        self,
        model: torch.nn.Module,
        named: Sequence[tuple[str, torch.nn.Parameter]],
        settings: TrainSettings,
        context: Context,
        loss_fn: LossFn,
        lr_scale: Mapping[str, float],
    ) -> None:
        self._accelerator = make_accelerator(context.device, bf16=context.bf16)
        self.device: torch.device = self._accelerator.device
        if any(p.device != self.device for p in model.parameters()):
            model.to(self.device)
        self._model, self._loss_fn, self._settings = model, loss_fn, settings
        self._params = [p for _, p in named]
        self.optimizer = build_optimizer(settings.optim, self._params, settings)
        scale_rates(self.optimizer, {p: lr_scale[name] for name, p in named if name in lr_scale})
        self.watch = GradientWatch(named)
        self._stepped = False

    def forward(self, batch: Batch) -> torch.Tensor:
        """See `Engine`."""
        with self._accelerator.autocast():
            return self._loss_fn(self._model, batch)

    def backward(self, loss: torch.Tensor) -> None:
        """See `Engine`."""
        parts = self._settings.gradient_accumulation_steps
        self._accelerator.backward(loss if parts == 1 else loss / parts)

    def update(self, learning_rate: float) -> bool:
        """See `Engine`."""
        finite = self.watch.clip(self._settings.max_grad_norm)
        if finite:
            self._set_rates(learning_rate)
            self._step()
            self._stepped = True
        self.optimizer.zero_grad(set_to_none=True)
        return finite

    def _set_rates(self, learning_rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * UNIT.get(self._settings.optim, 1.0) * group["lr_scale"]

    def _step(self) -> None:
        self.optimizer.step()

    def resident_bytes(self) -> int:
        """See `Engine`."""
        return module_bytes(self._model) + self.gradient_bytes()

    def gradient_bytes(self) -> int:
        """See `Engine`."""
        return sum(p.numel() * p.element_size() for p in self._params)

    def optimizer_bytes(self) -> int:
        """See `Engine`."""
        return state_bytes(self.optimizer) if self._stepped else expected_state_bytes(
            self._settings.optim, self._params)  # fmt: skip

    def offloaded_bytes(self) -> int:
        """See `Engine`."""
        return 0

    def gathered(self) -> AbstractContextManager[None]:
        """See `Engine`."""
        return nullcontext()

    def close(self) -> None:
        """See `Engine`."""
        self.optimizer.zero_grad(set_to_none=True)


def plain_engine(optim: str) -> type[PlainEngine]:
    """The engine that gives the optimizer `optim` what it needs beside gradients."""
    if optim in HESSIAN_DIAGONAL:
        from harness.optim.second_order import SecondOrderEngine

        return SecondOrderEngine
    if optim == "lbfgs":
        from harness.optim.line_search import LineSearchEngine

        return LineSearchEngine
    return PlainEngine


@contextmanager
def checkpointed(model: torch.nn.Module, enabled: bool) -> Iterator[None]:
    """Gradient checkpointing, non-reentrant (the reentrant kind leaves adapters on frozen inputs untrained)."""
    if not enabled or getattr(model, "is_gradient_checkpointing", False):
        yield
        return
    kind = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"  # transformers' new name
    enable: Any = getattr(model, f"{kind}_checkpointing_enable", None)
    disable: Any = getattr(model, f"{kind}_checkpointing_disable", None)
    if enable is None or disable is None:
        raise UsageError(f"gradient_checkpointing=True: {type(model).__name__} cannot checkpoint")
    enable(**{f"{kind}_checkpointing_kwargs": {"use_reentrant": False}})
    try:
        yield
    finally:
        disable()
