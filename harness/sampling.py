"""Text that a model samples itself: what a lock distils on beside its corpus, and what an adversary has of a locked
model's training distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from harness.seeds import derive

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.plugins import Context

ROWS = 384
"""Sequences sampled at once, at most: a step of decoding costs about the same for one as for hundreds."""


def _rows(model: PreTrainedModel, length: int, device: str) -> int:
    """`ROWS`, or as many as have room on a CUDA device with their keys and values, in half of what is free there."""
    if not device.startswith("cuda"):
        return ROWS
    from harness.models.placement import free_bytes

    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    row = int(2 * 4 * length * config.num_hidden_layers * heads * size)
    return max(1, min(ROWS, free_bytes(device) // 2 // row))


def sample_blocks(model: PreTrainedModel, tokens: int, length: int, context: Context) -> torch.Tensor:
    """At least `tokens` tokens at temperature 1, each sequence started by a random token.

    Charged to the meter's current stage: forward passes and tokens, on the same number of sequences a pass.

    Returns:
        (sequences, length) int64, on the CPU.
    """
    vocabulary = int(model.config.get_text_config().vocab_size)
    devices = [context.device] if context.device.startswith("cuda") else []
    passes = -(-tokens // (_rows(model, length, context.device) * length))
    rows = -(-tokens // (passes * length)) if passes else 0
    found: list[torch.Tensor] = [torch.empty(0, length, dtype=torch.int64)]
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        torch.manual_seed(derive(context.seed, "sample"))
        for done in range(1, passes + 1):
            start = torch.randint(vocabulary, (rows, 1)).to(context.device)
            with context.meter.measure(tokens=rows * length, key=("sample", id(model), rows, length)):
                ids: Any = model.generate(
                    start, attention_mask=torch.ones_like(start), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                    max_new_tokens=length - 1, min_new_tokens=length - 1, pad_token_id=0)  # fmt: skip
            found.append(ids.cpu())
            context.progress("sample", done, passes)
    return torch.cat(found)
