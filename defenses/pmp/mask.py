"""Masks: which entries are the ticket. A mask is bool tensors by parameter name; True is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from harness.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

Mask = dict[str, torch.Tensor]


def masked_parameters(model: nn.Module, *, everything: bool) -> dict[str, torch.nn.Parameter]:
    """The tensors that a mask covers: weights of linear layers, or `everything` (embeddings, norms and head too).

    Raises:
        UsageError: the model has no linear layers.
    """
    from harness.models.families import linear_modules

    named = dict(model.named_parameters())
    if everything:
        return named
    found = {name: named[name] for name in (f"{module}.weight" for module in linear_modules(model)) if name in named}
    if not found:
        raise UsageError(f"{type(model).__name__} has no linear layers besides its output head: nothing to mask")
    return found


def top(scores: Mapping[str, torch.Tensor], rho: float) -> Mask:
    """The `rho` of all entries together that have the largest scores, exactly round(rho * entries) of them.

    Of equal scores the first in the order of the tensors wins, so the same scores give the same mask everywhere.
    """
    flat = torch.cat([score.detach().reshape(-1).float().cpu() for score in scores.values()])
    count = min(max(round(rho * flat.numel()), 1), flat.numel())
    least = flat.kthvalue(flat.numel() - count + 1).values
    chosen = flat > least
    ties = (flat == least).nonzero().squeeze(1)
    chosen[ties[: count - int(chosen.sum())]] = True
    parts = torch.split(chosen, [score.numel() for score in scores.values()])
    return {name: part.view(score.shape) for (name, score), part in zip(scores.items(), parts, strict=True)}


def iou(a: Mask, b: Mask) -> float:
    """Intersection over union of two masks over the same tensors."""
    both = sum(int((a[name] & b[name]).sum()) for name in a)
    either = sum(int((a[name] | b[name]).sum()) for name in a)
    return both / either if either else 1.0


def pack(mask: Mask) -> dict[str, torch.Tensor]:
    """Eight entries a byte, row by row, the first in the highest bit: how the secret is kept; uint8 vectors by name."""
    return {name: torch.from_numpy(np.packbits(part.cpu().numpy().reshape(-1))) for name, part in mask.items()}


def unpack(packed: Mapping[str, torch.Tensor], model: nn.Module) -> Mask:
    """The mask that `pack` packed, in the shapes of `model`.

    Raises:
        UsageError: it is of another model.
    """
    named, mask = dict(model.named_parameters()), {}
    for name, bits in packed.items():
        if name not in named or bits.numel() != -(-named[name].numel() // 8):
            raise UsageError(f"the mask does not belong to this model: {name!r} has {bits.numel()} bytes of mask")
        flat = np.unpackbits(bits.numpy(), count=named[name].numel())
        mask[name] = torch.from_numpy(flat.astype(bool)).view(named[name].shape)
    return mask


def compare(guess: Mapping[str, torch.Tensor], secret: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """How well a guessed mask agrees with the secret one, both packed.

    Returns:
        `mask_iou`: intersection over union of the tickets over the secret's tensors, where a tensor that is not in
        `guess` counts as guessed to be trained whole; `mask_iou_chance`: what a random guess of the same size has.
    """
    both = either = ours = theirs = total = 0
    for name, bits in secret.items():
        truth = np.unpackbits(bits.numpy())
        said = np.unpackbits(guess[name].numpy()) if name in guess else np.ones_like(truth)
        both += int((truth & said).sum())
        either += int((truth | said).sum())
        ours, theirs, total = ours + int(said.sum()), theirs + int(truth.sum()), total + truth.size
    if not either:
        return {"mask_iou": 1.0, "mask_iou_chance": 1.0}
    chance = ours * theirs / total
    return {"mask_iou": both / either, "mask_iou_chance": chance / (ours + theirs - chance)}
