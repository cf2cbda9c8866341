"""Perplexity on held-out text, piece by piece, and the same text as blocks for comparing two models."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from harness.corpus import corpus
from harness.errors import UsageError
from harness.plugins import ItemScore
from harness.records.items import PERPLEXITY
from harness.tasks.content import bucket
from harness.tasks.lm_scoring import Chunk, chunks
from harness.utility.spec import Perplexity, UtilitySpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from harness.plugins import Released


def heldout_pieces(tokenizer: PreTrainedTokenizerBase, spec: UtilitySpec, data_dir: Path | None) -> list[Chunk]:
    """Pieces of the held-out text in a stable random order, until `spec.perplexity_tokens` tokens are reached.

    Raises:
        UsageError: the corpus is unknown, missing or empty.
    """
    documents = corpus(spec.perplexity_corpus, "heldout", data_dir)
    pieces = [c for i, text in enumerate(documents) for c in chunks(str(i), text, spec.perplexity_piece_bytes)]
    chosen: list[Chunk] = []
    tokens = 0
    for piece in sorted(pieces, key=lambda piece: bucket(piece.item, 2**40)):
        if tokens >= spec.perplexity_tokens:
            break
        chosen.append(piece)
        tokens += len(tokenizer.encode(piece.text, add_special_tokens=False, verbose=False))
    if not chosen:
        raise UsageError(f"perplexity_corpus={spec.perplexity_corpus!r} has no held-out text")
    return chosen


def perplexity(released: Released, spec: UtilitySpec, data_dir: Path | None) -> Perplexity:
    """Perplexity a token and bits per byte; every token of every piece counts, the first predicted from BOS/EOS."""
    from harness.tasks.loglikelihood import text_logprobs

    pieces = heldout_pieces(released.tokenizer, spec, data_dir)
    results = text_logprobs(released, [piece.text for piece in pieces])
    nats, tokens = math.fsum(value for value, _ in results), sum(count for _, count in results)
    size = sum(len(piece.text.encode()) for piece in pieces)
    names = [f"{spec.perplexity_corpus}/{piece.item}" for piece in pieces]
    items = tuple(ItemScore(metric=PERPLEXITY, item=name, score=value / count, weight=float(count))
                  for name, (value, count) in zip(names, results, strict=True))  # fmt: skip
    return Perplexity(corpus=spec.perplexity_corpus, per_token=math.exp(min(-nats / tokens, 700.0)),
                      bits_per_byte=-nats / math.log(2) / size, tokens=tokens, items=items)  # fmt: skip
