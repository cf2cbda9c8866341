"""First weights of the nets: random, greedy least squares, or slices of the pretrained MLP (docs/locks/dlr.md)."""

from __future__ import annotations

import math

import torch
from torch import nn

from defenses.dlr.build import linear_parts
from defenses.dlr.modeling_dlr import DLRBlock, DLRNet

RIDGE = 1e-3
"""Ridge of the least squares, relative to the mean power of the features."""


def random_init(net: DLRNet, generator: torch.Generator, scale: float = 1.0) -> None:
    """Reading matrices Gaussian (unit output for input of root mean square `scale`), writing matrices and head zero.

    The net starts as the zero map, so depth costs no stability at the start.
    """
    for block in _blocks(net):
        for linear in filter(None, (block.reduce, block.gate)):
            std = linear.in_features**-0.5 / (1.0 if block.norm == "rms" else scale)
            nn.init.normal_(linear.weight, std=std, generator=generator)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
        nn.init.zeros_(block.expand.weight)
    if net.head is not None:
        nn.init.zeros_(net.head.weight)


@torch.no_grad()
def set_gain(net: DLRNet, inputs: torch.Tensor, outputs: torch.Tensor) -> None:
    """The power of two next to the ratio of the root mean squares, so that it is exact in every release dtype."""
    ratio = float(outputs.square().mean() / inputs.square().mean().clamp_min(1e-30)) ** 0.5
    net.gain.fill_(2.0 ** round(math.log2(max(ratio, 2.0**-14))))


@torch.no_grad()
def greedy_init(net: DLRNet, inputs: torch.Tensor, outputs: torch.Tensor) -> None:
    """After `random_init`: each block's writing matrix is the ridge solution for what the blocks before left over.

    Args:
        net: as `random_init` left it; a learned head is fitted last.
        inputs: (tokens, width), the MLP's inputs on real text.
        outputs: (tokens, width), its outputs.
    """
    if net.shift is not None:
        net.shift.copy_(outputs.mean(0))
        outputs = outputs - outputs.mean(0)
    outputs = outputs / net.gain
    h = inputs
    for block in _blocks(net):
        captured: list[torch.Tensor] = []
        handle = block.expand.register_forward_pre_hook(lambda module, args, into=captured: into.append(args[0]))
        block(h)
        handle.remove()
        block.expand.weight.copy_(_ridge(captured[0], outputs - (h - inputs)).T)
        h = h + captured[0] @ block.expand.weight.T
    if net.head is not None:
        net.head.weight.copy_(_ridge(h, outputs).T)


@torch.no_grad()
def partition_init(net: DLRNet, mlp: nn.Module, scale: float = 1.0) -> None:
    """Blocks that are slices of the MLP's hidden units; were every block to read x, the net would be the MLP.

    Args:
        net: gated if the MLP is, of as many rows of rank in all as the MLP has hidden units.
        mlp: the pretrained MLP.
        scale: root mean square of the MLP's inputs; with norm `rms` the reading matrices take it up.
    """
    *reading, (writing, shift) = linear_parts(mlp)
    start = 0
    for block in _blocks(net):
        rows = slice(start, start + block.reduce.out_features)
        start = rows.stop
        for linear, (weight, bias) in zip(filter(None, (block.gate, block.reduce)), reading, strict=True):
            factor = scale if block.norm == "rms" else 1.0  # undoes the division by the root mean square, on average
            linear.weight.copy_(weight[rows] * factor)
            if bias is not None:
                linear.bias.copy_(bias[rows] * factor)
        block.expand.weight.copy_(writing[:, rows] / net.gain)
    if net.shift is not None and shift is not None:
        net.shift.copy_(shift)


def merged_slices(net: DLRNet, mlp: nn.Module, scale: float = 1.0) -> None:
    """The inverse of `partition_init`: the blocks side by side as one MLP, copied into `mlp`."""
    *reading, (writing, shift) = linear_parts(mlp)
    blocks = _blocks(net)
    factor = scale if blocks[0].norm == "rms" else 1.0
    with torch.no_grad():
        for index, (weight, bias) in enumerate(reading):
            parts = [list(filter(None, (block.gate, block.reduce)))[index] for block in blocks]
            weight.copy_(torch.cat([part.weight for part in parts]) / factor)
            if bias is not None:
                bias.copy_(torch.cat([part.bias for part in parts]) / factor)
        writing.copy_(net.gain * torch.cat([block.expand.weight for block in blocks], dim=1))
        if shift is not None and net.shift is not None:
            shift.copy_(net.shift)


def _blocks(net: DLRNet) -> list[DLRBlock]:
    return [block for block in net.blocks if isinstance(block, DLRBlock)]


def _ridge(features: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """(features, outputs) matrix W that minimises |features W - target|^2 with a ridge."""
    gram = (features.T @ features).double()
    gram.diagonal().add_(RIDGE * gram.diagonal().mean() + 1e-12)
    solution: torch.Tensor = torch.linalg.solve(gram, (features.T @ target).double())
    return solution.to(features.dtype)
