"""KL between two models' predictions as a loss: what a lock is polished by, and what an attacker distils by."""

from __future__ import annotations

import torch
from torch.nn import functional


def divergence(base: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """KL(base, other), mean over tokens, in nats, from logits (..., vocabulary)."""
    target, ours = base.float().log_softmax(-1), other.float().log_softmax(-1)
    tokens = target.numel() // target.shape[-1]
    return functional.kl_div(ours, target, reduction="sum", log_target=True) / tokens
