"""Text that a released model samples: what an adversary has of its training distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from harness.seeds import derive

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.plugins import AttackContext

ROWS = 64
"""Sequences sampled at once."""


def sample_blocks(model: PreTrainedModel, tokens: int, length: int, context: AttackContext) -> torch.Tensor:
    """At least `tokens` tokens at temperature 1, each sequence started by a random token; (sequences, length) int64.

    Charged to the meter's current stage.
    """
    vocabulary = int(model.config.get_text_config().vocab_size)
    devices = [context.device] if context.device.startswith("cuda") else []
    rows: list[torch.Tensor] = [torch.empty(0, length, dtype=torch.int64)]
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        torch.manual_seed(derive(context.seed, "sample"))
        for done in range(0, tokens, ROWS * length):
            start = torch.randint(vocabulary, (ROWS, 1)).to(context.device)
            with context.meter.measure(tokens=ROWS * length, key=("sample", id(model), length)):
                ids: Any = model.generate(
                    start, attention_mask=torch.ones_like(start), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                    max_new_tokens=length - 1, min_new_tokens=length - 1, pad_token_id=0)  # fmt: skip
            rows.append(ids.cpu())
            context.progress("sample", min(done + ROWS * length, tokens), tokens)
    return torch.cat(rows)
