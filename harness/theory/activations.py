"""Bytes that a feed-forward module keeps for backward, by formula: how DLR-Lock's memory grows with depth.

The paper's claim is that training memory grows linearly with the depth of the net that replaces an MLP (DLR-Lock, arXiv
2605.10777, abstract); we found no formula in it. `lean` and `padded` are the counts that one would write down on paper;
`dlr_kept` is exact for the block of our reconstruction, and a test holds it to the meter's count.

All are numbers a token; times tokens times bytes a number they are bytes. The input of the module counts, its output
does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

NORM_NUMBERS = 1
"""Kept by `sqrt(d) / (|h| + eps)` for each token: the number that scales the row."""


def swiglu_kept(width: int, hidden: int) -> int:
    """`down(silu(gate x) * up x)`: the input, and gate, silu(gate), up and their product."""
    return width + 4 * hidden


def lean(width: int, ranks: Sequence[int]) -> int:
    """The least any block `h + B act(A h)` keeps: its input and one tensor of its rank; `L (d + r)` at equal ranks."""
    return sum(width + rank for rank in ranks)


def padded(width: int, ranks: Sequence[int]) -> int:
    """A norm before A that makes a second copy of the input, and the activation's input and output: `L (2 d + 2 r)`."""
    return 2 * lean(width, ranks)


def dlr_kept(width: int, ranks: Sequence[int], *, norm: bool, activation_keeps_input: bool = True) -> int:
    """Exact for `h + B act(A h / rms(h))`, the norm applied after A with a backward of its own.

    Args:
        width: d.
        ranks: of the blocks.
        norm: whether there is one; it keeps its result, which is the activation's input, and `NORM_NUMBERS` a token.
        activation_keeps_input: false for ReLU, whose output is all that its backward needs.
    """
    copies = 1 + (activation_keeps_input or norm)
    return sum(width + copies * rank + NORM_NUMBERS * norm for rank in ranks)


def checkpointed_kept(width: int, depth: int, segments: int) -> int:
    """With checkpointing only the inputs of the segments are kept."""
    return width * ceil(depth / segment_size(depth, segments))


def segment_size(depth: int, segments: int) -> int:
    """Blocks in each segment but perhaps the last.

    Raises:
        ValueError: not 1 to `depth` segments.
    """
    if not 1 <= segments <= depth:
        raise ValueError(f"segments={segments}: allowed are 1 to {depth}")
    return ceil(depth / segments)


def checkpointed_peak(width: int, ranks: Sequence[int], segments: int, *, norm: bool) -> int:
    """A floor of the peak in backward: the inputs of the segments and one recomputed segment.

    Gradients in flight come on top: a few tensors of one block, whatever the depth.
    """
    size = segment_size(len(ranks), segments)
    pieces = [dlr_kept(width, ranks[first : first + size], norm=norm) for first in range(0, len(ranks), size)]
    return max(width * index + piece for index, piece in enumerate(pieces))  # a piece counts its own input
