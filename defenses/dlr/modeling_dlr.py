"""DLR-Net: a deep residual stack of low-rank blocks in the place of an MLP, and causal language models made with it.

This file is copied into every exported folder as remote code of plain `transformers`, so it imports torch,
transformers and the file beside it only. A reconstruction of DLR-Lock (arXiv 2605.10777): the paper's abstract fixes "a
deep residual network of low-rank layers with a parameter count comparable to the MLP"; all else is our choice
(docs/locks/dlr.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.activations import ACT2FN, SiLUActivation

from harness.models.derived import Part, put
from harness.models.derived import convert as derive

EPS = 1e-6
"""Keeps the norm of a zero row from dividing by zero."""


class _DividedByNorm(torch.autograd.Function):
    """`z / rms(h)`, row by row, with a backward that keeps `h`, the result and one number a row, and nothing else.

    Plain autograd would keep `z` too and go over `h` four times in backward, a fifth of a block's time. The backward
    can be differentiated again (`create_graph`).
    """

    @staticmethod
    def forward(ctx: Any, z: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        """(..., rank), (..., width) to (..., rank)."""
        scale = _inverse_rms(h)
        out: torch.Tensor = z * scale
        ctx.save_for_backward(out, h, scale)
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """d out = scale dz - out scale / (sqrt(width) |h|) <h, dh>."""
        out, h, scale = ctx.saved_tensors
        if torch.is_grad_enabled():  # the number kept has no history, and it is a function of h
            scale = _inverse_rms(h)
        along = _along(grad, out, scale, h.shape[-1])
        return (grad * scale).to(out.dtype), (h * along).to(h.dtype)


class _FusedBlock(torch.autograd.Function):
    """A plain block as one operation, `h + B silu(A h / rms(h))`; it keeps what autograd would keep.

    At the ranks of a deep net the products are so small that the passes over `h` between them take as long, and a
    product with few columns is slower than the same one with few rows: inside, rows are ranks and columns are tokens.
    The backward can be differentiated again.
    """

    @staticmethod
    def forward(ctx: Any, h: torch.Tensor, reduce: torch.Tensor, expand: torch.Tensor, norm: bool) -> torch.Tensor:
        """(..., width), (rank, width), (width, rank) to (..., width)."""
        rows = h.reshape(-1, h.shape[-1])
        z = reduce @ rows.t()
        scale = _inverse_rms(rows).view(1, -1) if norm else None
        if scale is not None:
            z *= scale
        hidden = nn.functional.silu(z)
        ctx.save_for_backward(h, reduce, expand, z, hidden if ctx.needs_input_grad[2] else None, scale)
        return torch.addmm(rows, hidden.t(), expand.t()).view(h.shape)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of `h` and of the two matrices, those that are needed."""
        h, reduce, expand, z, hidden, scale = ctx.saved_tensors
        if torch.is_grad_enabled():
            inputs = [x for x, needed in zip((h, reduce, expand), ctx.needs_input_grad, strict=False) if needed]
            out = _plain_block(h, reduce, expand, scale is not None)
            found = iter(torch.autograd.grad(out, inputs, grad, create_graph=True))
            return *(next(found) if needed else None for needed in ctx.needs_input_grad[:3]), None
        rows, grad_rows = h.reshape(-1, h.shape[-1]), grad.reshape(-1, h.shape[-1])
        d_h = d_reduce = d_expand = along = None
        if hidden is not None:
            d_expand = (hidden @ grad_rows).t()
        d_z = torch.ops.aten.silu_backward(expand.t() @ grad_rows.t(), z)
        if scale is not None:
            along = _along(d_z, z, scale, h.shape[-1], dim=0)
            d_z *= scale
        if ctx.needs_input_grad[0]:
            d_h = torch.addmm(grad_rows, d_z.t(), reduce)
            d_h = (d_h if along is None else d_h.addcmul_(rows, along.t())).view(h.shape)
        if ctx.needs_input_grad[1]:
            d_reduce = d_z @ rows
        return d_h, d_reduce, d_expand, None


def _plain_block(h: torch.Tensor, reduce: torch.Tensor, expand: torch.Tensor, norm: bool) -> torch.Tensor:
    z = h @ reduce.t()
    if norm:
        z = _DividedByNorm.apply(z, h)  # type: ignore[no-untyped-call]
    out: torch.Tensor = h + nn.functional.silu(z) @ expand.t()
    return out


def _along(grad: torch.Tensor, out: torch.Tensor, scale: torch.Tensor, width: int, dim: int = -1) -> torch.Tensor:
    """What of the gradient of `out = z scale(h)` lies along `h`, in units of `h`; `dim` is that of the ranks."""
    root = width**0.5
    length = (root / scale - EPS).clamp_min(EPS)
    found: torch.Tensor = (grad * out).sum(dim, keepdim=True) * scale / (-root * length)
    return found


def _untouched(linear: nn.Module, h: torch.Tensor) -> bool:
    """Whether calling the module is no more than multiplying by its weight: no adapter, quantisation, hook, bias."""
    hooked = linear._forward_hooks or linear._forward_pre_hooks or linear._backward_hooks
    return bool(type(linear) is nn.Linear and not hooked and linear.bias is None and linear.weight.dtype == h.dtype)


def _inverse_rms(h: torch.Tensor) -> torch.Tensor:
    """(..., width) to (..., 1)."""
    inverse: torch.Tensor = h.shape[-1] ** 0.5 / (torch.linalg.vector_norm(h, dim=-1, keepdim=True) + EPS)
    return inverse


class DLRBlock(nn.Module):
    """One block: `h + B act(A norm(h))`, or gated, `h + B (act(G norm(h)) * A norm(h))`.

    `norm` is the root mean square without a weight. It divides a row by one number, so it is applied after the
    projection (a bias included): `A norm(h) = A h / rms(h)`, and only `h` and one number a row are kept for backward.
    """

    def __init__(self, width: int, rank: int, *, activation: str, norm: str, gated: bool, bias: bool) -> None:
        super().__init__()
        self.reduce = nn.Linear(width, rank, bias=bias)
        self.gate = nn.Linear(width, rank, bias=bias) if gated else None
        self.expand = nn.Linear(rank, width, bias=False)
        self.act = ACT2FN[activation]
        self.norm = norm

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """(..., width) to (..., width)."""
        if self._fusible(h):
            matrices = self.reduce.weight, self.expand.weight
            fused: torch.Tensor = _FusedBlock.apply(h, *matrices, self.norm == "rms")  # type: ignore[no-untyped-call]
            return fused
        z = self._read(self.reduce, h)
        z = self.act(z) if self.gate is None else self.act(self._read(self.gate, h)) * z
        out: torch.Tensor = h + self.expand(z)
        return out

    def _fusible(self, h: torch.Tensor) -> bool:
        plain = self.gate is None and isinstance(self.act, (nn.SiLU, SiLUActivation))
        return (plain and _untouched(self.reduce, h) and _untouched(self.expand, h)
                and not torch.is_autocast_enabled(h.device.type))  # fmt: skip

    def _read(self, linear: nn.Module, h: torch.Tensor) -> torch.Tensor:
        z: torch.Tensor = linear(h)
        if self.norm == "rms":
            z = _DividedByNorm.apply(z, h)  # type: ignore[no-untyped-call]
        return z


class DLRNet(nn.Module):
    """The stack: `h_0 = x`, then the blocks; the output is `gain * (h_L - x)`, or `gain` times a linear map of `h_L`.

    `gain` is a constant, a power of two, that makes `h_L - x` about as large as `x`. Without it the blocks of an MLP
    with small outputs would all read nearly `x`: one wide layer in disguise, and its blocks side by side an MLP again.

    Backward keeps what plain autograd keeps: what every block needs. An adversary who wants that memory back sets
    `checkpoint = True` (and `segments` for the number of recomputed pieces); nothing here stands in the way.
    """

    def __init__(
        self,
        width: int,
        ranks: Sequence[int],
        *,
        activation: str = "silu",
        norm: str = "rms",
        head: str = "residual",
        gated: bool = False,
        bias: bool = False,
    ) -> None:
        """Build the net.

        Args:
            width: size of input and output.
            ranks: rank of each block, each at least 1; their number is the depth.
            activation: a name of transformers' ACT2FN.
            norm: `rms` or `none`.
            head: `residual` or `learned`.
            gated: gated blocks (three matrices a block instead of two).
            bias: biases inside the blocks and one on the output, as in MLPs that have them.
        """
        super().__init__()
        if not ranks or min(ranks) < 1 or norm not in ("rms", "none") or head not in ("residual", "learned"):
            raise ValueError(f"impossible DLR-Net: ranks={list(ranks)!r}, norm={norm!r}, head={head!r}")
        self.blocks = nn.ModuleList(
            DLRBlock(width, rank, activation=activation, norm=norm, gated=gated, bias=bias) for rank in ranks
        )
        self.head = nn.Linear(width, width, bias=False) if head == "learned" else None
        self.shift = nn.Parameter(torch.zeros(width)) if bias else None
        self.gain: torch.Tensor
        self.register_buffer("gain", torch.ones(()))
        self.checkpoint = False
        self.segments = 1

    def forward(self, x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """(..., width) to (..., width)."""
        h = x
        if self.checkpoint and torch.is_grad_enabled():
            size = -(-len(self.blocks) // self.segments)
            for first in range(0, len(self.blocks), size):
                h = checkpoint(self.run_blocks, h, first, first + size, use_reentrant=False)
        else:
            h = self.run_blocks(h, 0, len(self.blocks))
        out: torch.Tensor = (h - x if self.head is None else self.head(h)) * self.gain
        return out if self.shift is None else out + self.shift

    def run_blocks(self, h: torch.Tensor, first: int, last: int) -> torch.Tensor:
        """Through the blocks `first` to `last - 1`, (..., width) to (..., width)."""
        for block in list(self.blocks)[first:last]:
            h = block(h)
        return h


def install(model: nn.Module, dlr: dict[str, Any]) -> dict[str, DLRNet]:
    """Put freshly initialised DLR-Nets into `model`, in place; returns them by module path.

    Args:
        model: a model of the base architecture.
        dlr: `ranks` (module path of each net to its ranks), `bypassed` (module paths that become the identity, for
            architectures whose MLP is not one module), and the other arguments of `DLRNet`.
    """
    shape = {key: dlr[key] for key in ("width", "activation", "norm", "head", "gated", "bias")}
    nets = {name: DLRNet(ranks=ranks, **shape) for name, ranks in dlr["ranks"].items()}
    for name, net in nets.items():
        put(model, name, net.train(model.training))
    for name in dlr["bypassed"]:
        put(model, name, nn.Identity())
    return nets


PART = Part(prefix="DLR", key="dlr", install=install)
"""How the classes of locked models are made."""


def convert(model: Any, dlr: dict[str, Any]) -> Any:
    """Turn `model`, in which the nets already stand, into an instance of `DLR<Base>`, in place (weights untouched)."""
    return derive(PART, model, dlr)
