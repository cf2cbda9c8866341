"""What a lock distils on: the corpus, and text that the base itself samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from defenses.dlr import DLRSettings
from harness.packing import PackedBlocks, tokenize
from harness.sampling import sample_blocks

if TYPE_CHECKING:
    from harness.plugins import LockContext, Released

HELDOUT_TOKENS = 4096
"""Most held-out tokens that a check reads."""


def training_tokens(base: Released, settings: DLRSettings, context: LockContext) -> np.ndarray:
    """Tokens of the corpus and of the base's own samples, `settings.self_generated` of them the latter."""
    corpus = tokenize(context.corpus("train"), base.tokenizer)
    share = settings.self_generated
    wanted = min(settings.generated_tokens, round(len(corpus) * share / (1 - share)) if share < 1 else 2**62)
    if not wanted:
        return corpus
    generated = sample_blocks(base.model, wanted, settings.block_size, context).flatten().numpy().astype(np.int32)
    return generated if share == 1 else np.concatenate([corpus, generated])


def heldout_batches(texts: Sequence[str], base: Released, shape: tuple[int, int], device: str) -> list[torch.Tensor]:
    """Token ids of `shape` (batch, tokens) of held-out text, at most `HELDOUT_TOKENS` in all, spread over it."""
    rows, size = shape
    packed = PackedBlocks(tokenize(texts, base.tokenizer), block_size=size, batch_size=1, seed=0)
    count = max(1, min(len(packed.blocks), HELDOUT_TOKENS // size))
    chosen = np.linspace(0, len(packed.blocks) - 1, count).round().astype(int)
    return [batch.to(device) for batch in torch.split(packed.blocks[chosen], rows)]
