"""What every attack does before and after training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harness.composition import SIGN
from harness.plugins import Attacked

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.plugins import AttackContext, Context, Released
    from harness.training import TrainResult

ORDINARY_DROPOUT = 0.1
"""The rate of the architectures that have any; a config that asks for 0.9 trains nothing."""
Undo = Callable[..., dict[str, Any]]
"""(model, tokenizer, settings, context) to JSON for the report; changes the model in place, on the bill `undo`."""


def locks_of(released: Released) -> list[str]:
    """Names of the locks that the release says it has, in the order in which they were applied."""
    return str((released.lock or {}).get("defense", "none")).split(SIGN)


def lock_settings(released: Released, name: str) -> Mapping[str, Any] | None:
    """The settings of the lock `name`, where the release says that it has it, alone or among others."""
    parts = locks_of(released)
    if released.lock is None or name not in parts:
        return None
    settings: Mapping[str, Any] = released.lock["settings"]
    return settings[name] if len(parts) > 1 else settings


def prepare(model: PreTrainedModel, context: Context, device: str | None = None) -> PreTrainedModel:
    """The released model as an adversary loads it to train: fp32 master weights, every parameter frozen.

    They lie on `device`, by default the context's. A released model may arrive frozen, in bf16, with recomputation
    switched on, or with a dropout that spoils training and that nobody sees who only runs it; none of that may survive.
    """
    import torch

    model = model.to(device=device or context.device, dtype=torch.float32)
    if model.is_activation_checkpointing:
        model.activation_checkpointing_disable()
    limit_dropout(model)
    model.requires_grad_(False)
    return model


def limit_dropout(model: PreTrainedModel) -> None:
    """Bring dropout of any kind down to what architectures are trained with, wherever a model keeps its rates."""
    for place in (model.config, *model.modules()):
        for name, rate in list(vars(place).items()):
            named = "drop" in name or (name == "p" and "Dropout" in type(place).__name__)
            if named and type(rate) in (int, float) and ORDINARY_DROPOUT < rate <= 1:  # in JSON the worst rate may be 1
                setattr(place, name, ORDINARY_DROPOUT)


def unfreeze(model: PreTrainedModel, chosen: Callable[[str], bool] = lambda name: True) -> list[str]:
    """Let the parameters train whose name is `chosen`; returns their names, in model order (tied ones once)."""
    names = []
    for name, parameter in model.named_parameters():
        if chosen(name):
            parameter.requires_grad_(True)
            names.append(name)
    return names


@contextmanager
def eagerly() -> Iterator[None]:
    """Inside, nothing is compiled: bitsandbytes compiles its CPU kernels anew for each shape, for seconds each, and
    after a few shapes falls back to other code, so that the same run would not repeat bit for bit."""
    import torch

    with torch.compiler.set_stance("force_eager"):
        yield


def undo_then_finetune(released: Released, context: AttackContext, settings: Any, undo: Undo) -> Attacked:
    """Take the lock out of the released model by `undo`, whose report is the attack's, then fine-tune everything."""
    from harness.finetune import finetune

    def undone(seen: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
        model = prepare(released.model, context)
        return model, undo(model, released.tokenizer, seen, context)

    model, report = context.undo(undone, settings)
    targets = unfreeze(model)
    training = finetune(model, released.tokenizer, context, settings)
    return Attacked(model=finish(model), training=training, targets=targets, report=report)


def finetune_chosen(
    model: PreTrainedModel, released: Released, context: AttackContext, settings: Any,
    chosen: Callable[[str], bool] = lambda name: True, report: dict[str, Any] | None = None,
) -> Attacked:  # fmt: skip
    """Fine-tune the parameters whose name is `chosen` of a model from `prepare`; `report` is the attack's."""
    from harness.finetune import finetune

    targets = unfreeze(model, chosen)
    with context.meter.stage("attack"):
        training = finetune(model, released.tokenizer, context, settings)
    return Attacked(model=finish(model), training=training, targets=targets, report=report or {})


def finetune_scaled(
    model: PreTrainedModel, tokenizer: Any, context: AttackContext, settings: Any, scales: Mapping[str, float]
) -> TrainResult:
    """Fine-tune what is unfrozen with learning rates (and gradients, for the clipping) times `scales`, by name."""
    from harness.finetune import finetune

    handles = [model.get_parameter(name).register_hook(lambda gradient, scale=scale: gradient * scale)
               for name, scale in scales.items()]  # fmt: skip
    training = finetune(model, tokenizer, context, settings, lr_scale=scales)
    for handle in handles:
        handle.remove()
    return training


def finish(model: PreTrainedModel) -> PreTrainedModel:
    """The attacked model as it is scored: fp32, eval mode, no gradients kept."""
    import torch

    model.zero_grad(set_to_none=True)
    return model.to(torch.float32).eval()
