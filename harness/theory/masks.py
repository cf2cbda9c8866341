"""How stable are masks of the largest gradients? (PMP, arXiv 2602.00446, and its authors' code)

PMP's mask holds the share rho of all parameters with the largest |gradient| of one minibatch; its search stops when
successive masks overlap by 0.99. Masks that have nothing in common but their size overlap by rho / (2 - rho).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor


def top_mask(scores: Tensor, share: float) -> Tensor:
    """The `round(share * n)` largest scores, as a mask; ties are cut arbitrarily.

    Args:
        scores: (n,).
        share: rho, above 0, at most 1.

    Raises:
        ValueError: the share is outside that range.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share={share}: allowed are values above 0 and at most 1")
    mask = torch.zeros(scores.shape, dtype=torch.bool)
    mask[torch.topk(scores, round(share * scores.numel()), sorted=False).indices] = True
    return mask


def iou(a: Tensor, b: Tensor) -> float:
    """Intersection over union of two masks; 1 if both are empty."""
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


def independent_iou(share: float) -> float:
    """Of two random masks of the same share, in the limit of many parameters: `rho^2 / (2 rho - rho^2)`."""
    return share / (2 - share)


def mean_iou(masks: Sequence[Tensor]) -> float:
    """Over all pairs.

    Raises:
        ValueError: fewer than two masks.
    """
    pairs = [iou(a, b) for a, b in combinations(masks, 2)]
    if not pairs:
        raise ValueError(f"{len(masks)} masks: at least two are needed")
    return sum(pairs) / len(pairs)


def group_means(scores: Tensor, size: int) -> Tensor:
    """Scores averaged over disjoint groups of `size` batches: (batches, n) to (batches // size, n)."""
    groups = len(scores) // size
    return scores[: groups * size].unflatten(0, (groups, size)).mean(1)  # type: ignore[no-untyped-call, no-any-return]
