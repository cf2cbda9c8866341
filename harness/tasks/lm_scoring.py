"""Language modelling as a task: fixed chunks of text, scored in minus bits per byte."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from harness.plugins import ItemScore

if TYPE_CHECKING:
    from harness.plugins import Released

METRIC = "neg_bits_per_byte"


class Chunk(NamedTuple):
    """A piece of a document: `item` is the document's id and the chunk's number."""

    item: str
    text: str


def chunks(name: str, text: str, size: int) -> Iterator[Chunk]:
    """Cut `text` at line ends into pieces of at most `size` bytes (a longer line is a piece of its own).

    Joined in order the pieces are the text again; white space alone is never a piece.
    """
    piece: list[str] = []
    length = number = 0
    for line in text.splitlines(keepends=True):
        count = len(line.encode())
        if piece and length + count > size and "".join(piece).strip():
            yield Chunk(f"{name}#{number}", "".join(piece))
            piece, length, number = [], 0, number + 1
        piece.append(line)
        length += count
    if "".join(piece).strip():
        yield Chunk(f"{name}#{number}", "".join(piece))


def score_chunks(released: Released, items: Sequence[Chunk]) -> list[ItemScore]:
    """Minus bits per byte of each chunk, its first token predicted from BOS/EOS so that every byte counts.

    Returns:
        One `ItemScore` a chunk, weight = its bytes; the weighted mean is minus the bits per byte of all chunks.
    """
    from harness.tasks.loglikelihood import text_logprobs

    scores = []
    for item, (nats, _) in zip(items, text_logprobs(released, [chunk.text for chunk in items]), strict=True):
        size = len(item.text.encode())
        scores.append(ItemScore(metric=METRIC, item=item.item, score=nats / math.log(2) / size, weight=float(size)))
    return scores
