"""The shallow MLP that takes a DLR-Net's place, and its closed-form fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from harness.bill import Bill

if TYPE_CHECKING:
    from harness.plugins import Context

RIDGE = 1e-4
"""Ridge of the least squares, relative to the mean power of the features."""


class SwiGLU(nn.Module):
    """`down(silu(gate(x)) * up(x))`."""

    def __init__(self, width: int, hidden: int, bias: bool) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=bias)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """(..., width) to (..., hidden)."""
        out: torch.Tensor = functional.silu(self.gate_proj(x)) * self.up_proj(x)
        return out

    def forward(self, x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """(..., width) to (..., width)."""
        out: torch.Tensor = self.down_proj(self.features(x))
        return out


@dataclass(frozen=True)
class OwnGates:
    """Gates of a net's blocks side by side: did every block read the net's input, the net would be an MLP of them."""

    gate: torch.Tensor
    """(hidden, width)."""
    up: torch.Tensor
    """(hidden, width)."""
    normed: bool
    """Whether the blocks divide what they read by its root mean square."""

    @torch.no_grad()
    def put(self, mlp: SwiGLU, x: torch.Tensor) -> None:
        """Copy them into `mlp`, for inputs like `x`."""
        scale = float(x.square().mean().sqrt().clamp_min(1e-6)) if self.normed else 1.0
        mlp.gate_proj.weight.copy_(self.gate / scale)
        mlp.up_proj.weight.copy_(self.up / scale)


def own_gates(net: nn.Module, hidden: int) -> OwnGates | None:
    """Of a DLR-Net (remote code's too) that starts from slices of an MLP; None where it has not `hidden` gates."""
    blocks: list[Any] = [block for block in getattr(net, "blocks", ()) if getattr(block, "gate", None) is not None]
    if sum(block.gate.out_features for block in blocks) != hidden:
        return None
    gate, up = (torch.cat([getattr(block, name).weight.detach() for block in blocks]) for name in ("gate", "reduce"))
    return OwnGates(gate=gate.float(), up=up.float(), normed=blocks[0].norm == "rms")


class Fit:
    """Least squares for `down_proj` over streamed (input, output) pairs: only sums of products are kept."""

    def __init__(self, mlp: SwiGLU, context: Context) -> None:
        self.mlp, self.context = mlp, context
        width, hidden = mlp.down_proj.out_features, mlp.down_proj.in_features + (mlp.down_proj.bias is not None)
        self.gram = torch.zeros(hidden, hidden, device=context.device)
        self.cross = torch.zeros(hidden, width, device=context.device)

    @property
    def bytes(self) -> int:
        """Bytes of the sums."""
        return self.gram.nbytes + self.cross.nbytes

    def draw(self, x: torch.Tensor, generator: torch.Generator) -> None:
        """Gaussian gate and up projections of unit output on inputs like `x`."""
        std = float(x.square().sum(-1).mean().sqrt().clamp_min(1e-6)) ** -1
        for linear in (self.mlp.gate_proj, self.mlp.up_proj):
            linear.weight.data.copy_(torch.randn(linear.weight.shape, generator=generator) * std)

    @torch.no_grad()
    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Take up pairs (tokens, width), (tokens, width)."""
        with self.context.meter.measure(key=("fit", *self.gram.shape, *x.shape)):
            phi = self.mlp.features(x)
            if self.mlp.down_proj.bias is not None:
                phi = torch.cat([phi, phi.new_ones(len(phi), 1)], dim=1)
            self.gram += phi.T @ phi
            self.cross += phi.T @ y

    @torch.no_grad()
    def solve(self) -> None:
        """Write the ridge solution into `down_proj`."""
        gram = self.gram.double()
        gram.diagonal().add_(RIDGE * gram.diagonal().mean() + 1e-12)
        solution = torch.cholesky_solve(self.cross.double(), torch.linalg.cholesky(gram)).float()
        size, width = solution.shape
        self.context.meter.charge(Bill(forward_flops=size**3 / 3 + 2 * size**2 * width))
        down = self.mlp.down_proj
        if down.bias is not None:
            down.bias.copy_(solution[-1])
            solution = solution[:-1]
        down.weight.copy_(solution.T)
