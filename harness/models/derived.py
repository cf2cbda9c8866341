"""Classes of locked models: `<Prefix><Base>`, a transformers model whose constructor puts a lock's modules in.

This file is copied into every exported folder of a structural lock, as part of the remote code of plain `transformers`
(`harness.models.remote`), so it imports nothing of ours. Locks stack: the base may itself be such a class.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import transformers
from torch import nn


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one lock adds to a class."""

    prefix: str
    """Before the names of its classes: `DLR` makes `DLRLlamaForCausalLM`."""
    key: str
    """The entry of config.json that describes its modules; before the model type: `dlr_llama`."""
    install: Callable[[Any, Any], Any]
    """(model, value of that entry): put freshly initialised modules into the model, in place."""


@functools.cache
def config_class(part: Part, base: Any, module: str = __name__) -> Any:
    """The configuration class of locked models of `base` (a configuration class): its own `model_type`.

    Plain `transformers` does not know that type, so a locked folder opened without its remote code is refused
    instead of being filled with random modules.
    """
    body = {"model_type": f"{part.key}_{base.model_type}", "__doc__": f"{base.__name__} of a locked model."}
    return _derive(part, base, module, "AutoConfig", body)


@functools.cache
def model_class(part: Part, base: Any, module: str = __name__) -> Any:
    """`<Prefix><Base>`: `base` (a model class) with the modules that its config describes."""

    def __init__(self: Any, config: Any) -> None:
        base.__init__(self, config)
        part.install(self, getattr(config, part.key))
        self.post_init()

    body = {"__init__": __init__, "config_class": config_class(part, base.config_class, module),
            "__doc__": f"{base.__name__} with the modules of a lock."}  # fmt: skip
    return _derive(part, base, module, auto_class_of(base.__name__), body)


def auto_class_of(name: str) -> str:
    """transformers' `AutoModelFor...` that a class of this name belongs to."""
    kinds = ("SequenceClassification", "ImageClassification")
    return f"AutoModelFor{next((kind for kind in kinds if name.endswith(f'For{kind}')), 'CausalLM')}"


def _derive(part: Part, base: Any, module: str, auto: str, body: dict[str, Any]) -> Any:
    if module != __name__:  # remote code: `save_pretrained` then carries it along
        body["_auto_class"] = auto
    return type(part.prefix + base.__name__, (base,), {**body, "__module__": module})


def convert(part: Part, model: Any, value: Any) -> Any:
    """Turn `model`, in which the modules already stand, into an instance of `<Prefix><Base>`, in place."""
    base: Any = type(model)
    values = {key: value for key, value in model.config.to_dict().items() if key not in ("model_type", "architectures")}
    kind: Any = type(model.config)
    values = {"base_model_type": kind.model_type} | values | {part.key: value}
    config = config_class(part, kind)(**values)
    config._attn_implementation = model.config._attn_implementation
    for module in model.modules():
        if getattr(module, "config", None) is model.config:
            module.config = config
    model.config, model.__class__ = config, model_class(part, base)
    return model


def put(model: nn.Module, name: str, module: nn.Module) -> None:
    """Replace the module at a path."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def class_named(name: str, parts: Sequence[Part], module: str) -> Any:
    """`DLRLlamaForCausalLM`, `DLRLlamaConfig` and so on, made when asked for (the auto map names them).

    Raises:
        AttributeError: no lock of `parts` makes such a class.
    """
    part = next((part for part in parts if name.startswith(part.prefix)), None)
    if part is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    rest = name.removeprefix(part.prefix)
    base = getattr(transformers, rest, None) or class_named(rest, parts, module)
    return (config_class if name.endswith("Config") else model_class)(part, base, module)
