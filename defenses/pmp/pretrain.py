"""Stage II: pretraining from scratch, with the mask (the lock) or without (its control)."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch

from defenses.pmp.complement import Complement
from defenses.pmp.discover import discover
from defenses.pmp.mask import pack
from harness.packing import PackedBlocks, tokenize
from harness.plugins import Locked
from harness.seeds import derive
from harness.training import TrainResult, train

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from defenses.pmp import PMPSettings
    from harness.plugins import LockContext, Released


def initial_model(like: PreTrainedModel, seed: int) -> PreTrainedModel:
    """A model of the class and config of `like` with fresh weights in float32, drawn on the CPU from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = type(like)(copy.deepcopy(like.config))
    return model.float()


def init_seed(seed: int) -> int:
    """The seed of the initial weights in a context of seed `seed`."""
    return derive(seed, "init")


def pretrain_masked(base: Released, settings: PMPSettings, context: LockContext) -> Locked:
    """Find the mask, rewind, train the ticket alone; charged to the caller's stage."""
    model = initial_model(base.model, init_seed(context.seed)).to(context.device)
    mask, found = discover(model, _batches(base, settings, context, accumulate=1), settings, context)
    paper = settings.variant == "paper"
    with Complement(model, mask, hold=paper) as complement:
        report = {"discovery": found, "complement_norm_init": complement.norm()}

        def after_step(step: int) -> bool:
            if paper:
                return complement.after_step(step)
            if step % settings.project_every == 0:
                complement.project(settings.radius)
            return False

        result = train(model, _batches(base, settings, context), settings, context, label="pretrain the ticket",
                       stop=after_step, beside_bytes=complement.bytes)  # fmt: skip
    trained = sum(int(part.sum()) for part in mask.values())
    report |= {"masked_parameters": sum(part.numel() for part in mask.values()), "ticket": trained,
               "complement_norm": complement.norm()}  # fmt: skip
    return Locked(model=model.eval(), secret=pack(mask), report=report | _told(result))


def pretrain_dense(base: Released, settings: PMPSettings, context: LockContext) -> Locked:
    """The control: everything trains, from the same initial weights on the same tokens in the same order."""
    model = initial_model(base.model, init_seed(context.seed)).to(context.device)
    result = train(model, _batches(base, settings, context), settings, context, label="pretrain the control")
    return Locked(model=model.eval(), report=_told(result))


def _batches(base: Released, settings: PMPSettings, context: LockContext, *,
             accumulate: int | None = None) -> PackedBlocks:  # fmt: skip
    return PackedBlocks(
        tokenize(context.corpus("train"), base.tokenizer), block_size=settings.block_size,
        batch_size=settings.per_device_train_batch_size, seed=derive(context.seed, "order"),
        accumulate=accumulate or settings.gradient_accumulation_steps)  # fmt: skip


def _told(result: TrainResult) -> dict[str, Any]:
    tenth = max(1, len(result.losses) // 10)
    return {"steps": result.steps, "loss_start": result.losses[0], "loss_end": sum(result.losses[-tenth:]) / tenth}
