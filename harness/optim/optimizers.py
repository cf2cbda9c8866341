"""Optimizers by the names that transformers' `optim` gives them, from maintained libraries only."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from harness.errors import Unavailable, UsageError
from harness.optim import curvature, kronecker
from harness.optim.muon import StackedMuon
from harness.settings import unknown
from harness.train_settings import NOT_RESUMABLE, TrainSettings

Params = Sequence[torch.nn.Parameter]
MIN_8BIT = 256
"""Elements from which bitsandbytes keeps a tensor's state in 8 bits: one quantization block, so that the matrices of
tiny models are quantized too (the library's default of 4096 would silently leave them at 32 bits)."""


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon for matrices and AdamW for everything else, behind one set of groups and one state."""

    def __init__(self, params: Params, settings: TrainSettings) -> None:
        rate, decay = settings.learning_rate, settings.weight_decay
        super().__init__(params, {"lr": rate})
        matrices = [p for p in params if p.ndim == 2]
        rest = [p for p in params if p.ndim != 2]
        self.parts: list[torch.optim.Optimizer] = []
        if matrices:  # the update is scaled to AdamW's, so that one learning rate fits both
            self.parts.append(StackedMuon(matrices, lr=rate, weight_decay=decay))
        if rest:
            self.parts.append(_adamw(rest, settings))
        self.param_groups = [group for part in self.parts for group in part.param_groups]
        for part in self.parts:
            part.state = self.state

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Step both parts."""
        for part in self.parts:
            part.step()


def build_optimizer(name: str, params: Params, settings: TrainSettings) -> torch.optim.Optimizer:
    """The optimizer `name` over `params`, its learning rate, decay and betas from `settings`.

    Args:
        name: one of `OPTIMIZERS`.
        params: the tensors to train.
        settings: `learning_rate`, `weight_decay`, `adam_beta1`, `adam_beta2`, `adam_epsilon`.

    Raises:
        UsageError: an unknown name (lists the allowed ones), or one that cannot be resumed although `save_steps` asks.
        Unavailable: bitsandbytes, or pytorch-optimizer, is not installed.
    """
    if name in NOT_RESUMABLE and settings.save_steps:
        raise UsageError(f"save_steps={settings.save_steps}: optim={name} cannot be resumed, set save_steps=0")
    return OPTIMIZERS[check_name(name)](params, settings)


def scale_rates(optimizer: torch.optim.Optimizer, scales: Mapping[torch.Tensor, float]) -> None:
    """Split the groups, so that every tensor's group has an `lr_scale`: its factor in `scales`, else 1.

    The factor multiplies whatever rate the schedule sets; the optimizer's other settings stay.
    """
    parts: list[torch.optim.Optimizer] = getattr(optimizer, "parts", [optimizer])
    for part in parts:
        part.param_groups = [
            {**group, "params": [p for p in group["params"] if scales.get(p, 1.0) == scale], "lr_scale": scale}
            for group in part.param_groups for scale in sorted({scales.get(p, 1.0) for p in group["params"]})
        ]  # fmt: skip
    optimizer.param_groups = [group for part in parts for group in part.param_groups]


def check_name(name: str) -> str:
    """`name`, if there is such an optimizer; else UsageError with the allowed names."""
    if name not in OPTIMIZERS:
        raise UsageError(unknown(name, OPTIMIZERS, "optim"))
    return name


def expected_state_bytes(name: str, params: Iterable[torch.Tensor]) -> int:
    """Bytes of optimizer state that the first step will allocate, up to a few bytes a tensor."""
    return sum(_STATE[name](p) for p in params)


def state_bytes(optimizer: torch.optim.Optimizer, device: torch.device | None = None) -> int:
    """Bytes of optimizer state as it is now, by storage (shared quantization maps once); only on `device` if given."""
    found: dict[int, int] = {}
    for state in optimizer.state.values():
        for value in _tensors(state):
            if device is None or value.device == device:
                storage = value.untyped_storage()
                found[storage._cdata] = storage.nbytes()
    return sum(found.values())


def _tensors(state: Mapping[str, Any]) -> Iterator[torch.Tensor]:
    """The tensors of a state: in lists too, and in the attributes of objects (Shampoo's preconditioners)."""
    for leaf in tree_leaves(dict(state)):
        if isinstance(leaf, torch.Tensor):
            yield leaf
        elif hasattr(leaf, "__dict__") and not isinstance(leaf, Enum):
            yield from _tensors(vars(leaf))


def _adamw(params: Params, settings: TrainSettings) -> torch.optim.Optimizer:
    fusable = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in params)
    return torch.optim.AdamW(params, lr=settings.learning_rate, betas=(settings.adam_beta1, settings.adam_beta2),
                             eps=settings.adam_epsilon, weight_decay=settings.weight_decay, fused=fusable)  # fmt: skip


def _adamw_8bit(params: Params, settings: TrainSettings) -> torch.optim.Optimizer:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise Unavailable("optim=adamw_8bit needs bitsandbytes (pip install 'lockbench[quant]')")
    from bitsandbytes.optim import AdamW8bit

    optimizer: torch.optim.Optimizer = AdamW8bit(
        params, lr=settings.learning_rate, betas=(settings.adam_beta1, settings.adam_beta2), eps=settings.adam_epsilon,
        weight_decay=settings.weight_decay, min_8bit_size=MIN_8BIT)  # fmt: skip
    return optimizer


def _sgd(params: Params, settings: TrainSettings) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=settings.learning_rate, momentum=0.9, weight_decay=settings.weight_decay)


def _adafactor(params: Params, settings: TrainSettings) -> torch.optim.Optimizer:
    from transformers import Adafactor  # as transformers' Trainer sets it up: external learning rate, no scaling

    optimizer: torch.optim.Optimizer = Adafactor(params, lr=settings.learning_rate, scale_parameter=False,
                                                 relative_step=False, weight_decay=settings.weight_decay)  # fmt: skip
    return optimizer


def _rmsprop(params: Params, settings: TrainSettings) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(params, lr=settings.learning_rate, weight_decay=settings.weight_decay)


def _adagrad(params: Params, settings: TrainSettings) -> torch.optim.Optimizer:
    return torch.optim.Adagrad(params, lr=settings.learning_rate, weight_decay=settings.weight_decay)


def _adadelta(params: Params, settings: TrainSettings) -> torch.optim.Optimizer:
    return torch.optim.Adadelta(params, lr=settings.learning_rate, weight_decay=settings.weight_decay)


def _bytes(p: torch.Tensor) -> int:
    return p.numel() * p.element_size()


def _adam_8bit_bytes(p: torch.Tensor) -> int:
    blocks = -(-p.numel() // 256)
    return 2 * p.numel() + 8 * blocks if p.numel() >= MIN_8BIT else 8 * p.numel()


def _adafactor_bytes(p: torch.Tensor) -> int:
    return 4 * (p.numel() // p.shape[-1] + p.numel() // p.shape[-2]) if p.ndim >= 2 else 4 * p.numel()


OPTIMIZERS: dict[str, Callable[[Params, TrainSettings], torch.optim.Optimizer]] = {
    "adamw_torch": _adamw,
    "adamw_8bit": _adamw_8bit,
    "sgd": _sgd,
    "adafactor": _adafactor,
    "rmsprop": _rmsprop,
    "adagrad": _adagrad,
    "adadelta": _adadelta,
    "muon": MuonWithAdamW,
    "shampoo": kronecker.shampoo,
    "soap": kronecker.soap,
    "psgd_kron": kronecker.psgd_kron,
    "sophia": curvature.sophia,
    "adahessian": curvature.adahessian,
    "lbfgs": curvature.lbfgs,
}
_STATE: dict[str, Callable[[torch.Tensor], int]] = {
    "adamw_torch": lambda p: 2 * _bytes(p),
    "adamw_8bit": _adam_8bit_bytes,
    "sgd": _bytes,
    "adafactor": _adafactor_bytes,
    "rmsprop": _bytes,
    "adagrad": _bytes,
    "adadelta": lambda p: 2 * _bytes(p),
    "muon": lambda p: _bytes(p) if p.ndim == 2 else 2 * _bytes(p),
    "shampoo": kronecker.shampoo_bytes,
    "soap": kronecker.soap_bytes,
    "psgd_kron": kronecker.psgd_kron_bytes,
    "sophia": curvature.diagonal_bytes,
    "adahessian": curvature.diagonal_bytes,
    "lbfgs": curvature.lbfgs_bytes,
}
