"""What a lock distils on: the corpus, and text that the base itself samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from defenses.dlr import DLRSettings
from harness.packing import PackedBlocks, tokenize
from harness.seeds import derive

if TYPE_CHECKING:
    from harness.plugins import LockContext, Released

SAMPLES = 64
"""Sequences sampled at once."""
HELDOUT_TOKENS = 8192
"""Most held-out tokens that a check reads."""


def training_tokens(base: Released, settings: DLRSettings, context: LockContext) -> np.ndarray:
    """Tokens of the corpus and of the base's own samples, `settings.self_generated` of them the latter."""
    corpus = tokenize(context.corpus("train"), base.tokenizer)
    share = settings.self_generated
    wanted = min(settings.generated_tokens, round(len(corpus) * share / (1 - share)) if share < 1 else 2**62)
    if not wanted:
        return corpus
    generated = sample(base, wanted, settings.block_size, context)
    return generated if share == 1 else np.concatenate([corpus, generated])


@torch.no_grad()
def sample(base: Released, tokens: int, length: int, context: LockContext) -> np.ndarray:
    """At least `tokens` tokens from the base at temperature 1, in sequences of `length` started by a random token."""
    config, rows, done = base.model.config.get_text_config(), [], 0
    devices = [context.device] if context.device.startswith("cuda") else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derive(context.seed, "sample"))
        while done < tokens:
            start = torch.randint(config.vocab_size, (SAMPLES, 1), device=context.device)
            ids: Any = base.model.generate(
                start, attention_mask=torch.ones_like(start), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                max_new_tokens=length - 1, min_new_tokens=length - 1, pad_token_id=0)  # fmt: skip
            rows.append(ids.cpu().numpy().reshape(-1))
            done += ids.numel()
            context.progress("sample from the base", min(done, tokens), tokens)
    return np.concatenate(rows).astype(np.int32)


def heldout_batches(texts: Sequence[str], base: Released, shape: tuple[int, int], device: str) -> list[torch.Tensor]:
    """Token ids of `shape` (batch, tokens) of held-out text, at most `HELDOUT_TOKENS` in all, spread over it."""
    rows, size = shape
    packed = PackedBlocks(tokenize(texts, base.tokenizer), block_size=size, batch_size=1, seed=0)
    count = max(1, min(len(packed.blocks), HELDOUT_TOKENS // size))
    chosen = np.linspace(0, len(packed.blocks) - 1, count).round().astype(int)
    return [batch.to(device) for batch in torch.split(packed.blocks[chosen], rows)]
