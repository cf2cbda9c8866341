"""End to end: KL of the locked model to the base on the same tokens, only the nets trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch.nn import functional

from defenses.dlr.build import Swap
from defenses.dlr.distill import Students
from harness.divergence import divergence


def polish_loss(swap: Swap) -> Callable[[Students, torch.Tensor], torch.Tensor]:
    """KL of one batch; the base's logits come from the same batch, without gradients."""

    def loss(students: Students, ids: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            target = swap.logits(ids, locked=False)
        return divergence(target, swap.logits(ids, locked=True))

    return loss


class TwoModels(Protocol):
    """A base and what a lock made of it."""

    def logits(self, ids: torch.Tensor, *, locked: bool) -> torch.Tensor:
        """Logits (batch, tokens, vocabulary) of one of them."""


@torch.no_grad()
def heldout_fidelity(swap: TwoModels, batches: Sequence[torch.Tensor]) -> dict[str, Any]:
    """KL, top-1 agreement and perplexities on held-out text."""
    kl, agree, ours, theirs, count = 0.0, 0.0, 0.0, 0.0, 0
    for ids in batches:
        base, locked = swap.logits(ids, locked=False), swap.logits(ids, locked=True)
        kl += float(divergence(base, locked)) * ids.numel()
        agree += float((base.argmax(-1) == locked.argmax(-1)).sum())
        ours += _nll(locked, ids)
        theirs += _nll(base, ids)
        count += ids.numel()
    predicted = count - sum(len(ids) for ids in batches)
    return {"kl": kl / count, "top1_agreement": agree / count, "perplexity_base": math.exp(theirs / predicted),
            "perplexity_locked": math.exp(ours / predicted), "perplexity_ratio": math.exp((ours - theirs) / predicted),
            "tokens": count}  # fmt: skip


def _nll(logits: torch.Tensor, ids: torch.Tensor) -> float:
    return float(functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="sum"))
