"""Adjacent linear layers with nothing between them: found by what flows, not by names, and multiplied out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from harness.loop.proof import tensor_hash
from harness.models.families import linear_modules

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Hook = Callable[[nn.Module, Any, torch.Tensor], Any]


@torch.no_grad()
def find_chains(model: PreTrainedModel, ids: torch.Tensor) -> list[list[str]]:
    """Linear layers that only feed one another, in the order of application; every chain has at least two.

    A reads into B when B's input is A's output, bit for bit, at every call. That nothing else reads A is checked by
    poison: with NaN in the place of A's output and B's own output kept, the logits stay finite.

    Args:
        model: in evaluation mode.
        ids: a few token ids, (batch, tokens); layers that they do not reach are not looked at.
    """
    layers = linear_modules(model)
    read: dict[str, list[str]] = {name: [] for name in layers}
    written: dict[str, list[str]] = {name: [] for name in layers}

    def note(name: str) -> Hook:
        def hook(_: nn.Module, args: Any, output: torch.Tensor) -> None:
            read[name] += [tensor_hash(arg.flatten(0, -2)) for arg in args[:1]]  # a view between the two is nothing
            written[name].append(tensor_hash(output.flatten(0, -2)))

        return hook

    with hooked({layers[name]: note(name) for name in layers}):
        model(input_ids=ids, use_cache=False)
    follower: dict[str, str] = {}
    for first in layers:
        candidates = [name for name in layers if name != first and read[name] and read[name] == written[first]]
        if len(candidates) == 1 and _only_reader(model, layers[first], layers[candidates[0]], ids):
            follower[first] = candidates[0]
    chains = []
    for first in (name for name in follower if name not in follower.values()):
        chain = [first]
        while chain[-1] in follower:
            chain.append(follower[chain[-1]])
        chains.append(chain)
    return chains


def _only_reader(model: PreTrainedModel, first: nn.Module, second: nn.Module, ids: torch.Tensor) -> bool:
    kept: list[torch.Tensor] = []
    with hooked({second: lambda module, args, output: kept.append(output)}):
        model(input_ids=ids, use_cache=False)
    with hooked({first: lambda module, args, output: torch.full_like(output, float("nan")),
                 second: lambda module, args, output: kept.pop(0)}):  # fmt: skip
        return bool(model(input_ids=ids, use_cache=False).logits.isfinite().all())


@contextmanager
def hooked(hooks: dict[nn.Module, Hook]) -> Iterator[None]:
    """Forward hooks for a while; what a hook returns, other than None, takes the place of the output."""
    handles = [module.register_forward_hook(hook) for module, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def matrix(layer: Any) -> torch.Tensor:
    """Weight of a linear layer, (out, in), in float64; GPT-2's Conv1D stores the transpose."""
    weight: torch.Tensor = layer.weight.detach().double()
    return weight if isinstance(layer, nn.Linear) else weight.T


def product(model: nn.Module, chain: list[str]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The one weight (out, in) and bias, if any, that a chain of linear layers amounts to, in float64."""
    weight, bias = None, None
    for name in chain:
        layer: Any = model.get_submodule(name)
        factor, shift = matrix(layer), layer.bias
        weight = factor if weight is None else factor @ weight
        bias = None if bias is None else factor @ bias
        if shift is not None:
            bias = shift.detach().double() if bias is None else bias + shift.detach().double()
    assert weight is not None
    return weight, bias


def merge(model: nn.Module, chains: list[list[str]]) -> list[str]:
    """Multiply every chain out, in place; returns the names of the layers that took their places.

    Where the chain was all that a Sequential held, the new layer takes the Sequential's place.
    """
    names = []
    for chain in chains:
        weight, bias = product(model, chain)
        like: Any = model.get_submodule(chain[-1]).weight
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device=like.device, dtype=like.dtype)
        layer.weight.data.copy_(weight)
        if bias is not None:
            layer.bias.data.copy_(bias)
        for name in chain[:-1]:
            model.set_submodule(name, nn.Identity())
        model.set_submodule(chain[-1], layer)
        names.append(_lifted(model, chain[-1]))
    return names


def _lifted(model: nn.Module, name: str) -> str:
    """Put a layer in the place of each Sequential around it in which it is alone; returns where it then is."""
    while parent := name.rpartition(".")[0]:
        around = model.get_submodule(parent)
        if type(around) is not nn.Sequential or sum(not _inert(part) for part in around) > 1:
            break
        model.set_submodule(parent, model.get_submodule(name))
        name = parent
    return name


def _inert(module: nn.Module) -> bool:
    return isinstance(module, nn.Identity) or (type(module) is nn.Sequential and all(map(_inert, module)))
