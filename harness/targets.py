"""Which linear layers an adapter attaches to, resolved from the model in hand (design invariant 3).

A fixed list of module names would miss the layers that a lock has put in, without any error, and flatter that lock.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from harness.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

ALL_LINEAR = "all-linear"


def linear_targets(model: nn.Module, spec: str | Sequence[str]) -> list[str]:
    """Names of the linear layers that `spec` selects, in model order, as PEFT would read it.

    Args:
        model: any model; layers of a lock count like the others, embeddings and the output head never do.
        spec: `"all-linear"`; or a regular expression that must match a whole module path; or a list of names, each a
            module path or the end of one (`"q_proj"` is every layer's).

    Raises:
        UsageError: a name or expression that selects nothing, or a model without linear layers; says what exists.
    """
    names = adaptable_layers(model)
    if not names:
        raise UsageError(f"{type(model).__name__} has no linear layers besides its output head")
    if spec == ALL_LINEAR:
        return names
    return _by_pattern(names, spec) if isinstance(spec, str) else _by_name(names, spec)


def adaptable_layers(model: nn.Module) -> list[str]:
    """Paths of every layer that an adapter can go on, in model order: linear ones, and 2-d convolutions."""
    from torch import nn

    from harness.models.families import linear_modules

    linear = linear_modules(model)
    return [name for name, module in model.named_modules()
            if name in linear or (isinstance(module, nn.Conv2d) and module.groups == 1)]  # fmt: skip


def _by_pattern(names: list[str], pattern: str) -> list[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"target_modules={pattern!r} is not a regular expression: {error}") from None
    found = [name for name in names if compiled.fullmatch(name)]
    if not found:
        raise UsageError(f"target_modules={pattern!r} matches no whole path of a linear layer. {_existing(names)}")
    return found


def _by_name(names: list[str], wanted: Sequence[str]) -> list[str]:
    def selects(want: str, name: str) -> bool:
        return name == want or name.endswith(f".{want}")

    if not wanted:
        raise UsageError(f"target_modules is empty. {_existing(names)}")
    for want in wanted:
        if not any(selects(want, name) for name in names):
            raise UsageError(f"target_modules: no linear layer is called {want!r}. {_existing(names)}")
    return [name for name in names if any(selects(want, name) for want in wanted)]


def _existing(names: Iterable[str]) -> str:
    """Distinct last parts, numbers aside: a locked model has hundreds of paths and a handful of kinds."""
    leaves = dict.fromkeys(name.rpartition(".")[2] for name in names)
    return f"Linear layers here: {', '.join(leaves)}; or {ALL_LINEAR!r}"
