"""The kinds of models that scenarios are about, told from a config.json. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

Kind = Literal["causal_lm", "sequence_classification", "image_classification"]
KINDS: tuple[Kind, ...] = get_args(Kind)
CLASSIFIERS: tuple[Kind, ...] = ("sequence_classification", "image_classification")
WITH_TOKENS: tuple[Kind, ...] = ("causal_lm", "sequence_classification")
AUTO_CLASSES: dict[Kind, str] = {
    "causal_lm": "AutoModelForCausalLM", "sequence_classification": "AutoModelForSequenceClassification",
    "image_classification": "AutoModelForImageClassification",
}  # fmt: skip
"""transformers' class that builds a model of the kind."""
_SUFFIXES: dict[str, Kind] = {
    "ForSequenceClassification": "sequence_classification", "ForImageClassification": "image_classification",
}  # fmt: skip


def kind_of_class(name: str) -> Kind:
    """The kind of a model class by its name; what is no classifier counts as a causal language model."""
    return next((kind for suffix, kind in _SUFFIXES.items() if name.endswith(suffix)), "causal_lm")


def kind_of_config(config: Mapping[str, Any]) -> Kind:
    """The kind of the model that a config.json describes; a locked one's is its base's."""
    lock = config.get("lockbench")
    names = [lock.get("base_architecture")] if isinstance(lock, Mapping) else config.get("architectures") or []
    return kind_of_class(str(names[0])) if names else "causal_lm"


def auto_class(kind: Kind) -> Any:
    """transformers' `AutoModelFor...`; our own architectures are registered with it."""
    import transformers

    if kind == "image_classification":
        from harness.models.cifar_resnet import register

        register()
    return getattr(transformers, AUTO_CLASSES[kind])
