"""From the MLPs of a base to the shape of the DLR-Nets, and from the base architecture to the locked one."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from defenses.dlr import DLRSettings
from defenses.dlr.modeling_dlr import convert, install
from harness.errors import UsageError
from harness.models.derived import put
from harness.models.families import MLPSite, find_mlps

Pair = tuple[torch.Tensor, torch.Tensor]
"""Input and output of one MLP."""


def describe(model: Any, settings: DLRSettings) -> dict[str, Any]:
    """What `config.dlr` says of the nets that replace the MLPs of `model` (a base).

    Raises:
        UsageError: the model has no MLPs, or settings that leave a block without rank, or cannot be combined.
    """
    sites = find_mlps(model)
    split = settings.init == "partition"
    if split and settings.head == "learned":
        raise UsageError("defense.head='learned': init=partition writes into the residual stream, it needs 'residual'")
    if split and settings.rank is not None:
        raise UsageError(f"defense.rank={settings.rank}: init=partition shares out the MLP's units, it needs rank null")
    linears = [linear_parts(site.module) for site in sites] if split else []
    gated = split and len(linears[0]) == 3
    bias = any(parameter.dim() == 1 for parameter in sites[0].module.parameters())
    return {
        "ranks": {site.path: ranks(site, settings, gated, bias) for site in sites},
        "bypassed": [path for site in sites for path in site.bypassed], "width": sites[0].hidden_size,
        "activation": _own_activation(model) if split else settings.activation, "norm": settings.norm,
        "head": settings.head, "gated": gated, "bias": bias,
    }  # fmt: skip


def ranks(site: MLPSite, settings: DLRSettings, gated: bool, bias: bool) -> list[int]:
    """Rank of each block; the net then has the MLP's number of parameters, up to one row of a matrix pair.

    Raises:
        UsageError: a block would have rank 0.
    """
    if settings.rank is not None:
        return [settings.rank] * settings.depth
    width = site.hidden_size
    fixed = width * width * (settings.head == "learned") + width * bias
    row = (3 if gated else 2) * width + (2 if gated else 1) * bias
    total = max(0, round((site.parameters - fixed) / row))
    if total < settings.depth:
        raise UsageError(f"defense.depth={settings.depth}: the {site.parameters} parameters of {site.name} give "
                         f"{total} rows of rank, so a block would have rank 0; allowed: at most {total}")  # fmt: skip
    each, over = divmod(total, settings.depth)
    return [each + (index < over) for index in range(settings.depth)]


def linear_parts(mlp: nn.Module) -> list[tuple[Any, Any]]:
    """(weight (out, in), bias or None) of the matrices of an MLP: gate, up, down, or first, last.

    Raises:
        UsageError: it has neither two nor three matrices of the right shapes (a fused gate, for example).
    """
    from transformers.pytorch_utils import Conv1D

    found = [(module.weight.T if isinstance(module, Conv1D) else module.weight, module.bias)
             for module in mlp.modules() if isinstance(module, nn.Linear | Conv1D)]  # fmt: skip
    hidden = {tuple(weight.shape) for weight, _ in found[:-1]} | {tuple(weight.T.shape) for weight, _ in found[-1:]}
    if len(found) not in (2, 3) or len(hidden) != 1:
        raise UsageError(f"defense.init='partition': {type(mlp).__name__} is not made of gate, up and down matrices, "
                         "or of two matrices; allowed here: random, greedy")  # fmt: skip
    return found


def convert_to_locked(model: Any, settings: DLRSettings) -> Any:
    """The base architecture with DLR-Nets in it, as `DLR<Base>`; the nets' weights are to be loaded after."""
    dlr = getattr(model.config, "dlr", None) or describe(model, settings)
    install(model, dlr)
    return convert(model, dlr)


def _own_activation(model: Any) -> str:
    """The activation of the base's MLPs, as its config names it."""
    config = model.config.get_text_config()
    for key in ("hidden_activation", "hidden_act", "activation_function"):
        if isinstance(getattr(config, key, None), str):
            return str(getattr(config, key))
    raise UsageError(f"defense.init='partition': the config of {type(model).__name__} names no activation")


class Swap:
    """One model with two sets of MLPs: the base's (in place at the start) and the DLR-Nets. Nothing is copied."""

    def __init__(self, model: Any, dlr: dict[str, Any]) -> None:
        """Build the nets beside the base's MLPs; the base stays in place."""
        self.model, self.sites = model, find_mlps(model)
        paths = [*dlr["ranks"], *dlr["bypassed"]]
        self._base = {path: model.get_submodule(path) for path in paths}
        self.nets = list(install(model, dlr).values())
        self._locked = {path: model.get_submodule(path) for path in paths}
        self.base()

    def base(self) -> None:
        """Put the base's MLPs in place."""
        for path, module in self._base.items():
            put(self.model, path, module)

    def locked(self) -> None:
        """Put the DLR-Nets in place."""
        for path, module in self._locked.items():
            put(self.model, path, module)

    def capture(self, ids: torch.Tensor, *, locked: bool = False) -> tuple[list[Pair], torch.Tensor]:
        """Inputs and outputs of all MLPs (or nets, `locked`) in one forward pass without gradients, and the logits."""
        found: list[Pair] = []
        modules: list[Any] = self.nets if locked else [site.module for site in self.sites]
        hooks = [module.register_forward_hook(lambda _, args, output: found.append((args[0], output)))
                 for module in modules]  # fmt: skip
        try:
            with torch.no_grad():
                return found, self.logits(ids, locked=locked)
        finally:
            for hook in hooks:
                hook.remove()

    def logits(self, ids: torch.Tensor, *, locked: bool) -> torch.Tensor:
        """Logits (batch, tokens, vocabulary) of the base or of the locked model; the base's MLPs are in place after."""
        if locked:
            self.locked()
        try:
            logits: torch.Tensor = self.model(input_ids=ids, use_cache=False).logits
            return logits
        finally:
            self.base()
