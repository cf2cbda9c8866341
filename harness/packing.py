"""Documents to fixed blocks of tokens, packed without padding, and batches as a pure function of the step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from harness.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Shuffled:
    """An endless sequence of the indices below `count`, shuffled anew each epoch by `seed`."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)  # the last epoch's order, made once

    def __getitem__(self, index: int) -> int:
        epoch, position = divmod(index, self.count)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self.seed, epoch]).permutation(self.count)
        return int(self._order[position])


class PackedBlocks:
    """Blocks of `block_size` tokens, shuffled anew each epoch by `seed`.

    Every micro-batch has the same shape, so accumulation averages exactly and one metered step stands for all.
    """

    def __init__(self, tokens: np.ndarray, *, block_size: int, batch_size: int, accumulate: int = 1, seed: int) -> None:
        if len(tokens) < block_size:  # a tiny corpus still fills a block, by repetition
            tokens = np.resize(tokens, block_size)
        count = len(tokens) // block_size
        self.blocks = torch.from_numpy(tokens[: count * block_size].astype(np.int64).reshape(count, block_size))
        self.batch_size, self.accumulate = batch_size, accumulate
        self._order = Shuffled(count, seed)

    def __call__(self, step: int, micro: int) -> dict[str, torch.Tensor]:
        """`input_ids` and `labels`, both (batch_size, block_size) int64."""
        first = (step * self.accumulate + micro) * self.batch_size
        rows = [self._order[index] for index in range(first, first + self.batch_size)]
        ids = self.blocks[rows]
        return {"input_ids": ids, "labels": ids}


def tokenize(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """All documents in order, each ended by EOS, as one int32 vector.

    Raises:
        UsageError: there is no text.
    """
    if not any(texts):
        raise UsageError("the task has no training text")
    end = tokenizer.eos_token_id
    ids: list[int] = []
    for row in tokenizer(list(texts), add_special_tokens=False)["input_ids"]:
        ids.extend(row)
        if end is not None:
            ids.append(end)
    return np.asarray(ids, dtype=np.int32)
