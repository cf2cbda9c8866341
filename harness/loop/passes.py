"""What a pass over a batch is counted as, and the mode in which a model is scored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch


def count_tokens(batch: Mapping[str, torch.Tensor]) -> int:
    """Tokens of a micro-batch: elements of `input_ids`, else the leading sizes of its first tensor; an image is one."""
    if "input_ids" in batch:
        return batch["input_ids"].numel()
    if "pixel_values" in batch:
        return len(batch["pixel_values"])
    first = next(iter(batch.values()))
    return first.numel() // first.shape[-1] if first.ndim > 1 else first.numel()


@contextmanager
def evaluated(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every module is in the mode it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
