"""Models, a task and a context that the tests of all attacks share."""

from __future__ import annotations

import copy
import functools
import importlib
import tempfile
from pathlib import Path
from typing import Any

from conftest import byte_tokenizer, random_llama

from harness.budget import Budget
from harness.meters.meter import Meter
from harness.models.digest import weights_digest
from harness.plugins import AttackContext, Attacked, ItemScore, Released, Settings, Task

ATTACKS = {
    "full": "full:FullFineTuning", "full_trainer": "full_trainer:TrainerFineTuning",
    "full_8bit": "full_8bit:EightBitFineTuning", "lora": "lora:LoRA", "qlora": "qlora:QLoRA",
    "checkpointing": "checkpointing:Checkpointing", "frozen_mlp": "frozen_mlp:FrozenMLP",
    "redistill": "redistill:Redistill", "offload": "offload:Offload", "partial_depth": "partial_depth:PartialDepth",
    "pretrain_first": "pretrain_first:PretrainFirst", "distil_student": "distil_student:DistilStudent",
    "mezo": "mezo:MeZO", "undo_specdef": "undo_specdef:UndoSpecDef",
    "undo_specdef_reparam": "undo_specdef_reparam:UndoSpecDefReparam",
    "authorised": "authorised:Authorised", "undo_pmp": "undo_pmp:UndoPMP",
}  # fmt: skip
QUICK = [name for name in ATTACKS if name not in ("offload", "authorised", "undo_pmp")]
"""`authorised` and `undo_pmp` are `full` on these models; test_undo_pmp.py has others."""
SMALL: dict[str, dict[str, Any]] = {
    "redistill": {"undo_steps": 30, "sampled_tokens": 0}, "distil_student": {"distil_steps": 20, "sampled_tokens": 0},
    "undo_specdef": {"distil_steps": 30, "sampled_tokens": 0, "distil_batch_size": 4},
    "pretrain_first": {"pretrain_steps": 6}, "mezo": {"learning_rate": 2e-2, "directions": 8},
}  # fmt: skip
MODELS = ["llama", "dlr_llama", "gpt2", "dlr_gpt2"]


class Rhyme(Task):
    """Sentences of one pattern: a few steps lower the loss on them."""

    Settings = Settings
    metric, unit = "pattern", "none"

    def train_texts(self) -> list[str]:
        return [f"the cat number {i} sat on the mat and ate {i * 7 % 13} fish. " for i in range(60)]

    def score(self, released: Released, split: str, *, limit: int | None = None) -> list[ItemScore]:
        raise AssertionError("attacks do not score")

    def digest(self) -> str:
        return "0" * 64


def random_gpt2(seed: int = 0) -> Any:
    """Two layers with Conv1D matrices, biases and tied embeddings; no dropout, so that runs can be compared."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    return GPT2LMHeadModel(GPT2Config(vocab_size=260, n_embd=32, n_layer=2, n_head=4, n_positions=256, bos_token_id=0,
                                      eos_token_id=0, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)).eval()  # fmt: skip


def lock_like_dlr(model: Any, depth: int = 4) -> Any:
    """The architecture of a DLR-locked model, its nets as torch initialises them."""
    from defenses.dlr import DLRSettings
    from defenses.dlr.build import convert_to_locked

    return convert_to_locked(model, DLRSettings(depth=depth)).eval()


@functools.cache
def _model(name: str) -> Any:
    base = random_llama() if name.endswith("llama") else random_gpt2()
    return lock_like_dlr(base) if name.startswith("dlr") else base


def released(model: str | Any) -> Released:
    """A fresh copy of a named model, or `model` itself."""
    model = copy.deepcopy(_model(model)) if isinstance(model, str) else model
    return Released(model=model, tokenizer=byte_tokenizer(), digest=weights_digest(model), name="case")


def context(folder: Path | None = None, *, budget: str = "", seed: int = 0, probe: Any = None) -> AttackContext:
    """A context on the CPU with a fresh meter."""
    folder = folder or Path(tempfile.mkdtemp(prefix="lockbench-"))
    return AttackContext(seed=seed, device="cpu", folder=folder, meter=Meter(Budget.from_text(budget)),
                         task=Rhyme(Settings()), probe=probe)  # fmt: skip


def build(name: str, **settings: Any) -> Any:
    """An attack by name, small enough for a test."""
    module, _, kind = ATTACKS[name].partition(":")
    cls = getattr(importlib.import_module(f"attacks.{module}"), kind)
    small: dict[str, Any] = {"max_steps": 12, "learning_rate": 5e-3, "per_device_train_batch_size": 4, "block_size": 32}
    small |= SMALL.get(name, {})
    return cls(cls.Settings.parse({**small, **settings}, "attack"))


@functools.cache
def attacked(name: str, model: str) -> tuple[Attacked, AttackContext]:
    """The attack on a fresh copy of a named model, run once for all tests that look at it."""
    where = context()
    return build(name).attack(released(model), where), where
