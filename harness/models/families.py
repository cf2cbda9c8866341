"""Where the MLPs and the attention of a decoder are: all knowledge of model families is the table below."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from harness.errors import UsageError
from harness.models.heads import head_of


@dataclass(frozen=True, kw_only=True)
class Family:
    """Attribute names inside one decoder layer."""

    attention: str = "self_attn"
    mlp: str = "mlp"
    """The MLP's attribute; for an inline MLP (`parts` set) a name that only this module understands."""
    parts: tuple[str, str, str] | None = None
    """(first linear, activation, last linear) when the layer calls them itself instead of an MLP module."""


_LLAMA_LIKE = Family()
FAMILIES: dict[str, Family] = {
    **dict.fromkeys(
        ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi", "phi3", "olmo", "olmo2",
         "smollm3", "stablelm", "starcoder2", "granite", "cohere", "glm"), _LLAMA_LIKE),
    **dict.fromkeys(("gpt2", "gpt_bigcode", "gptj", "codegen"), Family(attention="attn")),
    "gpt_neox": Family(attention="attention"),
    "opt": Family(parts=("fc1", "activation_fn", "fc2")),
}  # fmt: skip
"""By `model_type` of the config's class or of a class it derives from; any other model is tried as Llama."""

REFUSED = {
    "falcon": "its layer adds the attention output into the MLP's output in place, which corrupts what a hook captures",
    "bloom": "its MLP takes the residual stream as a second input",
}
"""Families whose MLP is not a function of its input alone, or cannot be observed; with the reason."""


class InlineMLP(nn.Module):
    """First linear, activation and last linear of a layer that has no MLP module (OPT), as one module.

    A view: it shares the layer's modules and is not registered in the model. Calling it computes the MLP; its forward
    hooks fire, with the MLP's input and output, when the layer itself runs. OPT flattens to (tokens, hidden) there.
    """

    def __init__(self, first: nn.Module, activation: nn.Module, last: nn.Module) -> None:
        super().__init__()
        self.first, self.activation, self.last = first, activation, last
        self.training = first.training

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(..., hidden) to (..., hidden)."""
        output: torch.Tensor = self.last(self.activation(self.first(hidden)))
        return output

    def register_forward_pre_hook(self, hook: Callable[..., Any], **options: Any) -> RemovableHandle:
        """As nn.Module's, on the first linear."""
        return self.first.register_forward_pre_hook(hook, **options)

    def register_forward_hook(self, hook: Callable[..., Any], **options: Any) -> RemovableHandle:
        """As nn.Module's (without options): `hook(module, (input,), output)`.

        Raises:
            TypeError: `prepend`, `with_kwargs` or `always_call` is given.
        """
        if any(options.values()):
            raise TypeError(f"an inline MLP's forward hook takes no options, got {options}")
        inputs: list[tuple[Any, ...]] = []
        before = self.first.register_forward_pre_hook(lambda module, args: inputs.append(args))
        after = self.last.register_forward_hook(lambda module, args, output: hook(self, inputs.pop(), output))
        return _Handles(before, after)


class _Handles(RemovableHandle):
    """Two hooks, removed together."""

    def __init__(self, first: RemovableHandle, second: RemovableHandle) -> None:
        self._both = (first, second)

    def remove(self) -> None:
        for handle in self._both:
            handle.remove()


@dataclass(frozen=True, kw_only=True)
class MLPSite:
    """One MLP of a decoder, or whatever a lock has put in its place: a map (..., hidden) to (..., hidden)."""

    name: str
    """For `get_module` and `set_module`; not always a module path (OPT has no module there)."""
    module: nn.Module
    layer: int
    hidden_size: int
    parameters: int
    path: str
    """Module path at which `set_module` puts the replacement (equal to `name` but for an inline MLP)."""
    bypassed: tuple[str, ...] = ()
    """Module paths that become identities when the MLP is replaced (the rest of an inline MLP)."""


def find_mlps(model: nn.Module) -> list[MLPSite]:
    """Every MLP of a decoder, in layer order, locked or not, wrapped by PEFT or not.

    Raises:
        UsageError: the model has no MLP that can be identified, or its family is refused; says which.
    """
    family, layers = _layers(model)
    hidden = int(_text_config(model).hidden_size)
    sites = []
    for index, (name, layer) in enumerate(layers):
        module = _inline(layer, family) if family.parts else getattr(layer, family.mlp)
        count = sum(parameter.numel() for parameter in module.parameters())
        path, *bypassed = [f"{name}.{part}" for part in family.parts or (family.mlp,)]
        sites.append(MLPSite(name=f"{name}.{family.mlp}", module=module, layer=index, hidden_size=hidden,
                             parameters=count, path=path, bypassed=tuple(bypassed)))  # fmt: skip
    return sites


def attention_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The self-attention module of every layer by module path, in layer order.

    Raises:
        UsageError: as `find_mlps`.
    """
    family, layers = _layers(model)
    return {f"{name}.{family.attention}": getattr(layer, family.attention) for name, layer in layers}


def get_module(model: nn.Module, name: str) -> nn.Module:
    """The module at a path, or at the name of an `MLPSite`."""
    parent, attribute = _split(model, name)
    family = _inline_family(parent, attribute)
    return _inline(parent, family) if family else model.get_submodule(name)


def set_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` at a path, or at the name of an `MLPSite`; it takes the model's train or eval mode.

    At an inline MLP it takes the first linear's place and the activation and last linear become identities, so the
    layer's own code still runs.
    """
    parent, attribute = _split(model, name)
    family = _inline_family(parent, attribute)
    if family and family.parts:
        attribute, *rest = family.parts
        for other in rest:
            setattr(parent, other, nn.Identity())
    elif not hasattr(parent, attribute):
        raise UsageError(f"the model has no module {name!r}")
    setattr(parent, attribute, module.train(parent.training))


def linear_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Every matrix of the model that is applied as a linear map, by module path, in model order.

    Finds nn.Linear and what derives from it (bitsandbytes' Linear4bit and Linear8bitLt), GPT-2's Conv1D, and below a
    PEFT wrapper the wrapped layer (`....base_layer`) but not the adapter. Leaves out embeddings and the output head.
    """
    head = _output_head(model)
    found: dict[str, nn.Module] = {}
    adapters: list[str] = []
    for name, module in model.named_modules():
        if hasattr(module, "base_layer") and hasattr(module, "adapter_layer_names"):
            adapters += [f"{name}.{part}." for part in module.adapter_layer_names]
        inside = any(f"{name}.".startswith(prefix) for prefix in adapters)
        if is_linear(module) and module is not head and not inside:
            found[name] = module
    return found


def is_linear(module: nn.Module) -> bool:
    """Whether `module` is one matrix applied as a linear map (PEFT wrappers are not; their `base_layer` is)."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, nn.Linear | Conv1D) and not hasattr(module, "base_layer")


def _output_head(model: nn.Module) -> nn.Module | None:
    get = getattr(model, "get_output_embeddings", None)
    head = get() if get is not None else None
    return getattr(head, "base_layer", head) if head is not None else head_of(model)


def _text_config(model: nn.Module) -> Any:
    config: Any = getattr(model, "config", None)
    if config is None:
        raise UsageError(f"{type(model).__name__} is not a transformers model: it has no config")
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def _layers(model: nn.Module) -> tuple[Family, list[tuple[str, nn.Module]]]:
    """The family, and the decoder layers with their paths."""
    kinds = [vars(cls)["model_type"] for cls in type(_text_config(model)).__mro__ if "model_type" in vars(cls)]
    kind = next((kind for kind in kinds if kind in REFUSED or kind in FAMILIES), kinds[0])
    if kind in REFUSED:
        raise UsageError(f"model type {kind!r} has no MLP that can be replaced: {REFUSED[kind]}")
    family = FAMILIES.get(kind, _LLAMA_LIKE)
    needed = {family.attention, *(family.parts or (family.mlp,))}
    stacks = [found for found in _stacks(model) if all(hasattr(layer, part) for _, layer in found for part in needed)]
    if len(stacks) != 1:
        raise UsageError(f"found {len(stacks)} stacks of layers with {sorted(needed)} in a model of type {kind!r}, "
                         f"expected 1; known types: {', '.join(FAMILIES)}")  # fmt: skip
    return family, stacks[0]


def _stacks(model: nn.Module) -> Iterator[list[tuple[str, nn.Module]]]:
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module):
            yield [(f"{name}.{index}", layer) for index, layer in enumerate(module)]


def _inline(layer: nn.Module, family: Family) -> nn.Module:
    """The view of an inline MLP, or the module that has replaced it."""
    first, activation, last = (getattr(layer, part) for part in family.parts or ())
    return first if isinstance(last, nn.Identity) else InlineMLP(first, activation, last)


def _inline_family(layer: nn.Module, attribute: str) -> Family | None:
    """The inline family whose invented MLP name `attribute` is, if `layer` is one of its layers."""
    if hasattr(layer, attribute):
        return None
    inline = (family for family in FAMILIES.values() if family.parts and family.mlp == attribute)
    return next((family for family in inline if all(hasattr(layer, part) for part in family.parts or ())), None)


def _split(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    parent, _, attribute = name.rpartition(".")
    try:
        return model.get_submodule(parent), attribute
    except AttributeError:
        raise UsageError(f"the model has no module {name!r}") from None
