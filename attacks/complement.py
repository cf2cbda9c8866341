"""What an attacker may do with PMP's complement before fine-tuning: draw it anew, or train it on public text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from attacks.share import Share
from defenses.pmp.complement import Complement
from defenses.pmp.pretrain import initial_model
from harness.corpus import corpus
from harness.packing import PackedBlocks, tokenize
from harness.seeds import derive
from harness.train_settings import TrainSettings
from harness.training import train

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from attacks.undo_pmp import UndoPMPSettings
    from defenses.pmp.mask import Mask
    from harness.plugins import AttackContext

PUBLIC_TEXT = "python_docs"
"""Comes with Python, so every attacker has it."""


def redraw_complement(model: PreTrainedModel, mask: Mask, seed: int) -> None:
    """Give the complement (False in `mask`) new initial values, in place."""
    fresh = dict(initial_model(model, derive(seed, "redraw")).named_parameters())
    named = dict(model.named_parameters())
    with torch.no_grad():
        for name, ticket in mask.items():
            parameter = named[name]
            parameter.copy_(torch.where(ticket.to(parameter.device), parameter, fresh[name].to(parameter.device)))


def pretrain_complement(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, mask: Mask,
                        settings: UndoPMPSettings, context: AttackContext) -> dict[str, Any]:  # fmt: skip
    """Train the complement alone on public text, within the share of the budget; charged to the current stage."""
    share = Share(context.meter)
    tokens = settings.per_device_train_batch_size * settings.block_size
    count = sum(parameter.numel() for parameter in model.parameters())
    steps = min(settings.undo_steps, share.steps(), share.affordable(6 * count) // tokens)
    complement = {name: ~ticket for name, ticket in mask.items() if not bool(ticket.all())}
    if not steps or not complement:
        return {"undo_steps": 0}
    batches = PackedBlocks(tokenize(corpus(PUBLIC_TEXT, "train", context.data_dir), tokenizer),
                           block_size=settings.block_size, batch_size=settings.per_device_train_batch_size,
                           seed=derive(context.seed, "public"))  # fmt: skip
    knobs = TrainSettings(learning_rate=settings.learning_rate, max_steps=steps, block_size=settings.block_size,
                          per_device_train_batch_size=settings.per_device_train_batch_size, eval_points=0)  # fmt: skip
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in complement)
    with Complement(model, complement) as ticket:

        def after_step(step: int) -> bool:
            return ticket.after_step(step) or share.late()

        result = train(model, batches, knobs, context, label="public text", stop=after_step,
                       beside_bytes=ticket.bytes)  # fmt: skip
    model.requires_grad_(False)
    return {"undo_steps": result.steps}
