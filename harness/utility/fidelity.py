"""How close a locked model's predictions are to the base's, token by token, at the precision that is released."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness.errors import UsageError
from harness.packing import tokenize
from harness.tasks.loglikelihood import context_size, logit_elements
from harness.utility.perplexity import heldout_pieces

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from harness.plugins import Released
    from harness.utility.spec import UtilitySpec

BLOCK = 256


def heldout_blocks(tokenizer: PreTrainedTokenizerBase, spec: UtilitySpec, data_dir: Path | None) -> torch.Tensor:
    """The text of the perplexity as token blocks, (blocks, 256) int64; a last part block is dropped."""
    tokens = tokenize([piece.text for piece in heldout_pieces(tokenizer, spec, data_dir)], tokenizer)
    size = min(BLOCK, len(tokens))
    count = len(tokens) // size
    return torch.from_numpy(tokens[: count * size].astype("int64")).reshape(count, size)


def fidelity(base: Released, other: Released, blocks: torch.Tensor) -> dict[str, Any]:
    """Per-token KL(base || other) and agreement on the most likely next token.

    Args:
        base: the unlocked model.
        other: the locked (or attacked) model, with the same vocabulary.
        blocks: (blocks, length) int64 token ids; every position predicts, the last one included.

    Returns:
        `kl` in nats a token (not below 0 but for rounding), `top1_agreement` in [0, 1], `dtype` of the other model's
        weights, `n_tokens` compared.

    Raises:
        UsageError: the two are the same weights (a comparison that can only succeed), or the vocabularies differ.
    """
    _check(base, other)
    blocks = _fitting(blocks, min(context_size(base.model), context_size(other.model)))
    vocabulary = base.model.get_output_embeddings().weight.shape[0]
    rows = max(1, logit_elements(other.model) // (blocks.shape[1] * vocabulary))
    kl = agreed = 0.0
    with torch.inference_mode():
        for start in range(0, len(blocks), rows):
            batch = blocks[start : start + rows]
            p, q = (_logits(side, batch).log_softmax(-1) for side in (base, other))
            kl += float((p.exp() * (p - q)).sum(-1).double().sum())
            agreed += float((p.argmax(-1) == q.argmax(-1)).sum())
    n = blocks.numel()
    return {"kl": kl / n, "top1_agreement": agreed / n, "dtype": _dtype(other), "n_tokens": n}


def _check(base: Released, other: Released) -> None:
    if base.digest == other.digest:
        raise UsageError(f"{base.name!r} and {other.name!r} have the same weights ({base.digest[:12]}): "
                         "comparing a model with itself says nothing")  # fmt: skip
    sizes = [side.model.get_output_embeddings().weight.shape[0] for side in (base, other)]
    if sizes[0] != sizes[1]:
        raise UsageError(f"vocabularies of {sizes[0]} and {sizes[1]} tokens cannot be compared token by token")


def _fitting(blocks: torch.Tensor, size: int) -> torch.Tensor:
    """Blocks no longer than the models' context."""
    if blocks.shape[1] <= size:
        return blocks
    flat = blocks.reshape(-1)
    return flat[: len(flat) // size * size].reshape(-1, size)


def _logits(side: Released, batch: torch.Tensor) -> torch.Tensor:
    side.model.eval()
    logits: torch.Tensor = side.model(input_ids=batch.to(side.model.device), use_cache=False).logits.float()
    return logits


def _dtype(side: Released) -> str:
    return str(next(side.model.parameters()).dtype).removeprefix("torch.")
