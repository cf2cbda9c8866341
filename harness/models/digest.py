"""sha256 of weights in memory and of files, streaming."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.files import sha256

if TYPE_CHECKING:
    import torch

_CHUNK = 1 << 24  # bytes hashed at a time


def unique_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and persistent buffers, sorted by name; tied ones once, under the first of their names."""
    seen: set[int] = set()
    found: dict[str, torch.Tensor] = {}
    for name, tensor in sorted(model.state_dict(keep_vars=True).items()):
        if id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = tensor
    return found


def weights_digest(model: torch.nn.Module) -> str:
    """sha256 over (name, dtype, shape, bytes) of every tensor of `unique_tensors`; the same on every device.

    The digest is of the weights as they are in memory: the same checkpoint in another dtype has another digest.
    """
    return tensors_digest(unique_tensors(model))


def tensors_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """`weights_digest` of a model whose `unique_tensors` are these."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name}\0{str(tensor.dtype).removeprefix('torch.')}\0{tuple(tensor.shape)}\0".encode())
        for piece in _pieces(tensor):
            digest.update(piece)
    return digest.hexdigest()


def files_digest(folder: Path) -> str:
    """sha256 over (relative path, sha256) of every regular file below `folder`, hidden ones included."""
    digest = hashlib.sha256()
    for path in sorted(found for found in folder.rglob("*") if found.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{sha256(path)}\n".encode())
    return digest.hexdigest()


def _pieces(tensor: torch.Tensor) -> Iterator[memoryview]:
    import torch  # late: the spec hashes local folders before torch is needed

    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)  # contiguous: a copy of one tensor at most
    for start in range(0, flat.numel(), _CHUNK):
        yield flat[start : start + _CHUNK].cpu().numpy().data
