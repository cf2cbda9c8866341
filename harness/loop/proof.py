"""The proof that training moved what it should: content hashes of tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch


def tensor_hash(tensor: torch.Tensor) -> str:
    """sha256 of a tensor's dtype, shape and bytes, as hex; equal only for equal content."""
    value = tensor.detach().to("cpu").contiguous()
    digest = hashlib.sha256(f"{value.dtype}{tuple(value.shape)}".encode())
    digest.update(value.reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
    return digest.hexdigest()


def tensor_hashes(named: Iterable[tuple[str, torch.Tensor]]) -> dict[str, str]:
    """`tensor_hash` by name."""
    return {name: tensor_hash(tensor) for name, tensor in named}
