"""Models, a task and a context that the tests of all attacks share."""

from __future__ import annotations

import copy
import functools
import importlib
from typing import Any

from harness import testing
from harness.plugins import AttackContext, Attacked, Released
from harness.testing import AttackConformance, random_gpt2, random_llama
from harness.testing.attack import SMALL as KNOBS
from harness.testing.cases import attack_context as context

__all__ = ["ALPHA", "ATTACKS", "LAYERS", "MODELS", "QUICK", "K", "attacked", "build", "conformance", "context",
           "lock_like_dlr", "lock_like_specdef", "random_gpt2", "released"]  # fmt: skip
ATTACKS = {
    "full": "full:FullFineTuning", "full_trainer": "full_trainer:TrainerFineTuning",
    "full_8bit": "full_8bit:EightBitFineTuning", "lora": "lora:LoRA", "qlora": "qlora:QLoRA",
    "checkpointing": "checkpointing:Checkpointing", "frozen_mlp": "frozen_mlp:FrozenMLP",
    "redistill": "redistill:Redistill", "offload": "offload:Offload", "partial_depth": "partial_depth:PartialDepth",
    "pretrain_first": "pretrain_first:PretrainFirst", "distil_student": "distil_student:DistilStudent",
    "mezo": "mezo:MeZO", "relative": "relative:Relative", "until_flat": "until_flat:UntilFlat",
    "undo_until_flat": "undo_until_flat:UndoUntilFlat", "undo_specdef": "undo_specdef:UndoSpecDef",
    "undo_specdef_reparam": "undo_specdef_reparam:UndoSpecDefReparam",
    "undo_all": "undo_all:UndoAll", "authorised": "authorised:Authorised", "undo_pmp": "undo_pmp:UndoPMP",
}  # fmt: skip
QUICK = [name for name in ATTACKS if name not in ("offload", "authorised", "undo_pmp")]
"""`authorised` and `undo_pmp` are `full` on these models; test_undo_pmp.py has others."""
SMALL: dict[str, dict[str, Any]] = {
    "redistill": {"undo_steps": 30, "sampled_tokens": 0}, "distil_student": {"distil_steps": 20, "sampled_tokens": 0},
    "undo_specdef": {"distil_steps": 30, "sampled_tokens": 0, "distil_batch_size": 4},
    "pretrain_first": {"pretrain_steps": 6}, "mezo": {"learning_rate": 2e-2, "directions": 8},
    "until_flat": {"doublings": 0}, "undo_until_flat": {"doublings": 0},
}  # fmt: skip
"""Those `until_flat` are one run here, as the kit counts the steps of one; test_until_flat.py has more."""
MODELS = ["llama", "dlr_llama", "gpt2", "dlr_gpt2"]


def lock_like_dlr(model: Any, depth: int = 4) -> Any:
    """The architecture of a DLR-locked model, its nets as torch initialises them."""
    from defenses.dlr import DLRSettings
    from defenses.dlr.build import convert_to_locked

    return convert_to_locked(model, DLRSettings(depth=depth)).eval()


@functools.cache
def _model(name: str) -> Any:
    base = random_llama() if name.endswith("llama") else random_gpt2()
    return lock_like_dlr(base) if name.startswith("dlr") else base


ALPHA, K = 1e4, 8
"""Of the pairs below."""
LAYERS = ("model.layers.0.mlp.up_proj", "model.layers.0.self_attn.o_proj", "model.layers.1.self_attn.k_proj")


def lock_like_specdef(model: Any, layers: tuple[str, ...] = LAYERS, alpha: float = ALPHA) -> Any:
    """Pairs in the places of `layers`, as SpecDef's reparameterisation makes them."""
    from attacks.linear_pairs import matrix
    from defenses.specdef_reparam.lock import split
    from defenses.specdef_reparam.modeling_specdef_reparam import pair
    from harness.models.derived import put

    for name in layers:
        old = model.get_submodule(name)
        new, weights = pair(old), split(matrix(old), alpha, K)
        for link, weight in zip(new, weights, strict=True):
            link.weight.data.copy_(weight)
        if old.bias is not None:
            new[1].bias.data.copy_(old.bias)
        put(model, name, new.eval())
    return model


def released(model: str | Any) -> Released:
    """A fresh copy of a named model, or `model` itself."""
    return testing.released(copy.deepcopy(_model(model)) if isinstance(model, str) else model)


def kind_of(name: str) -> Any:
    """The class of an attack."""
    module, _, kind = ATTACKS[name].partition(":")
    return getattr(importlib.import_module(f"attacks.{module}"), kind)


def build(name: str, **settings: Any) -> Any:
    """An attack by name, small enough for a test."""
    kind = kind_of(name)
    return kind(kind.Settings.parse({**KNOBS, **SMALL.get(name, {}), **settings}, "attack"))


@functools.cache
def conformance(name: str) -> type[AttackConformance]:
    """The conformance tests of an attack, on locked and unlocked models of two families."""
    chosen = ("llama", "dlr_llama") if name == "offload" else MODELS
    models = {model: functools.partial(copy.deepcopy, _model(model)) for model in chosen}
    return type(f"Test_{name}", (AttackConformance,), {
        "kind": kind_of(name), "settings": SMALL.get(name, {}), "models": models, "main": "dlr_llama"})  # fmt: skip


def attacked(name: str, model: str) -> tuple[Attacked, AttackContext]:
    """The attack on a fresh copy of a named model, run once for all tests that look at it."""
    return conformance(name).attacked(model)
