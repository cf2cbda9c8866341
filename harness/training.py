"""The one training loop (on accelerate): attacks, locks, re-distillation and pretraining all run through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch

from harness.errors import UsageError
from harness.train_settings import TrainSettings as TrainSettings  # defined torch-free, used under this name

if TYPE_CHECKING:
    from harness.optim.zeroth_order import ZerothOrder
    from harness.plugins import Context

Batch = dict[str, torch.Tensor]


class Batches(Protocol):
    """Where batches come from: a pure function of (step, micro), so that resuming needs no iterator state."""

    def __call__(self, step: int, micro: int) -> Batch:
        """The micro-batch `micro` of optimizer step `step`, tensors on the CPU."""


@dataclass(frozen=True, kw_only=True)
class TrajectoryPoint:
    """The attacker's score (selection split) after so much was spent, undo included."""

    step: int
    tokens: int
    flops: float
    score: float


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a training run did, and the proof that it trained (design.md, invariant 2)."""

    steps: int
    losses: Sequence[float]
    trajectory: Sequence[TrajectoryPoint] = ()
    trained: Sequence[str] = ()
    """Names of tensors with requires_grad."""
    unmoved: Sequence[str] = ()
    """Trained tensors whose bytes are the same after as before."""
    missing_gradients: Sequence[str] = ()
    """Trained tensors that never had a gradient."""
    nonfinite_gradients: Sequence[str] = ()
    """Trained tensors whose gradient was inf or nan at some step."""
    stopped_by: str = "max_steps"
    """max_steps, or the budget limit that ended it."""
    extra: dict[str, Any] = field(default_factory=dict)


LossFn = Callable[[torch.nn.Module, Batch], torch.Tensor]


def causal_lm_loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Mean next-token loss, nats a token, as the model itself computes it from `labels`; without a key-value cache."""
    loss: torch.Tensor = model(**batch, use_cache=False).loss
    return loss


def train(
    model: torch.nn.Module,
    batches: Batches,
    settings: TrainSettings,
    context: Context,
    *,
    label: str = "train",
    loss_fn: LossFn = causal_lm_loss,
    probe: Callable[[Any], float] | None = None,
    stop: Callable[[int], bool] | None = None,
    deepspeed: dict[str, Any] | None = None,
    zeroth_order: ZerothOrder | None = None,
    beside_bytes: int = 0,
    lr_scale: Mapping[str, float] | None = None,
    spare_flops: float = 0,
) -> TrainResult:
    """Train every parameter of `model` that requires a gradient, within `context.meter.budget`.

    Args:
        model: trained in place; tensors with requires_grad are trained, the rest is frozen.
        batches: see `Batches`.
        settings: knobs; `max_steps` is cut to what the budget still allows before the schedule is laid out.
        context: device, seed, precision, meter (charged to its current stage), folder for checkpoints.
        label: name of the progress bar.
        loss_fn: (model, micro-batch) -> scalar loss.
        probe: scores the unwrapped model at the points of the trajectory; its cost is not charged.
        stop: called with the step after each step; True ends training (early stop).
        deepspeed: a DeepSpeed configuration; the loop then runs under accelerate's DeepSpeed plug-in.
        zeroth_order: train by forward passes alone (MeZO); `settings.optim` and `max_grad_norm` are not used.
        beside_bytes: bytes on the device beside the model's (a teacher that `loss_fn` calls), for the memory bill.
        lr_scale: factors on the learning rate of single tensors, by name; the others have 1. Not under DeepSpeed.
        spare_flops: for a loss whose cost depends on the data, FLOPs that a micro-batch may cost beyond the first's:
            every micro-batch is then counted, and the budget keeps so much for the next step.

    Raises:
        OutOfMemory: the budget's memory, or the machine's, does not suffice.
        OverBudget: the budget does not allow a single step.
        UsageError: nothing of the model requires a gradient, an unknown optimizer, or `lr_scale` names other tensors.
    """
    from harness.loop.engine import Engine, checkpointed, plain_engine, to_master_weights
    from harness.loop.passes import evaluated
    from harness.loop.reproducible import reproducible
    from harness.loop.run import Run
    from harness.meters.device_memory import device_memory
    from harness.meters.memory import real_out_of_memory

    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not named:
        raise UsageError("nothing to train: no tensor of the model requires a gradient")
    strange = set(lr_scale or ()) - {name for name, _ in named}
    if strange or (lr_scale and deepspeed is not None):
        raise UsageError(f"lr_scale: {sorted(strange)[:3]} are not trained" if strange else "lr_scale with DeepSpeed")
    to_master_weights(model, bf16=context.bf16)
    with (
        context.meter.stage(),
        reproducible(context.seed),
        evaluated(model),
        checkpointed(model, settings.gradient_checkpointing),
        real_out_of_memory(),
        device_memory(context, model, beside_bytes) as memory,
    ):
        model.train()
        engine: Engine
        if deepspeed is not None:
            from harness.loop.deepspeed_engine import DeepSpeedEngine

            engine = DeepSpeedEngine(model, named, settings, context, loss_fn, deepspeed)
        elif zeroth_order is not None:
            from harness.optim.zeroth_order import ZerothOrderEngine

            engine = ZerothOrderEngine(model, named, settings, context, loss_fn, zeroth_order)
        else:
            engine = plain_engine(settings.optim)(model, named, settings, context, loss_fn, lr_scale or {})
        try:
            run = Run(model, batches, settings, context, engine, named, label=label, probe=probe, stop=stop,
                      memory=memory, beside_bytes=beside_bytes, spare_flops=spare_flops)  # fmt: skip
            return run.execute()
        finally:
            engine.close()
