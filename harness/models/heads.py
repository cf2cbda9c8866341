"""The head of a classifier: where it is, a fresh one for another label set, and one lent for a moment.

A fresh head is zero (Kolesnikov et al. 2020, "Big Transfer"): it answers the first class to everything, so that the
score before training is that of guessing, and it needs no random draw.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from harness.errors import UsageError
from harness.kinds import CLASSIFIERS, kind_of_class
from harness.models.placement import carrier_of

MARK = "lockbench_head"
"""Entry of the config in memory: whose labels a replaced head answers."""


def head_name(model: nn.Module) -> str:
    """Path of the classifier's output layer: the last linear layer with as many outputs as there are labels.

    Raises:
        UsageError: there is none.
    """
    labels = getattr(getattr(model, "config", None), "num_labels", None)
    names: list[str] = [name for name, module in model.named_modules()
             if isinstance(module, nn.Linear) and module.out_features == labels]  # fmt: skip
    if not names:
        raise UsageError(f"{type(model).__name__} has no linear head of {labels} outputs")
    return names[-1]


def head_of(model: nn.Module) -> nn.Module | None:
    """The output layer of a classifier; None for a model of another kind."""
    kinds = {kind_of_class(cls.__name__) for cls in type(model).__mro__}
    return model.get_submodule(head_name(model)) if kinds & set(CLASSIFIERS) else None


def blocks_of(model: nn.Module) -> list[str]:
    """Paths of the blocks of a classifier's body in order of depth: the members of its outermost lists of modules.

    Raises:
        UsageError: there is no such list.
    """
    stacks = [f"{name}." for name, module in model.named_modules()
              if name and isinstance(module, nn.ModuleList | nn.Sequential) and _alike(module)]  # fmt: skip
    outer = [name for name in stacks if not any(other != name and name.startswith(other) for other in stacks)]
    found = [f"{stack}{index}" for stack in outer for index, _ in enumerate(model.get_submodule(stack[:-1]).children())]
    if not found:
        raise UsageError(f"{type(model).__name__} has no list of blocks to train a part of")
    return found


def _alike(stack: nn.Module) -> bool:
    """Whether the list holds blocks of one class, and not the different layers of a block."""
    kinds = {type(module) for module in stack.children()}
    return len(kinds) == 1 and any(True for module in stack.children() for _ in module.children())


def replace_head(model: Any, labels: int, mark: str) -> None:
    """Give the classifier a zero head of `labels` outputs, in place, marked as answering `mark`'s labels."""
    name = head_name(model)
    _put(model, name, _zero(model.get_submodule(name), labels), labels)
    setattr(model.config, MARK, mark)


@contextmanager
def answering(model: Any, labels: int, mark: str) -> Iterator[None]:
    """Inside, the model has a head for `mark`'s labels: its own if it was replaced for them, else a zero one."""
    if getattr(model.config, MARK, None) == mark:
        yield
        return
    name = head_name(model)
    own, count = model.get_submodule(name), model.config.num_labels
    lent = _zero(own, labels)
    _put(model, name, lent, labels)
    if (carrier := carrier_of(model)) is not None:
        carrier.carry(lent)
    try:
        yield
    finally:
        _put(model, name, own, count)


def _zero(old: nn.Module, labels: int) -> nn.Linear:
    weight: Any = old.weight
    new = nn.Linear(weight.shape[1], labels, bias=old.bias is not None, device=weight.device, dtype=weight.dtype)
    for parameter in new.parameters():
        nn.init.zeros_(parameter)
    return new


def _put(model: Any, name: str, head: nn.Module, labels: int) -> None:
    model.set_submodule(name, head)
    if labels != model.config.num_labels:  # setting it makes anonymous names of the labels
        model.config.num_labels = labels
    if hasattr(model, "num_labels"):
        model.num_labels = labels
