"""Top singular values of many weight matrices at the price of a few thin products, differentiable, warm-started.

Block power iteration (subspace iteration; Golub & Van Loan, "Matrix Computations", 8.2): a block `V` of `k + spare`
columns is kept for each matrix from call to call, so that a matrix that drifts as slowly as weights do in training
needs a product with `W` and one with `W^T` a step instead of a full SVD. The gradient of a simple value is `u v^T`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

SETTLED = 1e-5
"""Change of a value over a round, relative to the largest one, below which `settle` counts the round as still."""
STILL_ROUNDS = 5
"""Rounds in a row without change that end `settle`."""


def matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """Weights that act as matrices, by parameter name in model order, each once.

    nn.Linear, transformers' Conv1D (transposed, which singular values do not see) and nn.Conv*d (out, rest). Left out:
    embeddings, what is tied to one, and the output head of a language model.
    """
    from transformers.pytorch_utils import Conv1D

    kinds = (nn.Linear, Conv1D, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    get = getattr(model, "get_output_embeddings", None)
    head = get() if get is not None else None
    skipped = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    skipped |= {id(head.weight)} if head is not None else set()
    found: dict[str, nn.Parameter] = {}
    for name, module in model.named_modules():
        weight: Any = getattr(module, "weight", None)
        if isinstance(module, kinds) and id(weight) not in skipped:
            found[f"{name}.weight" if name else "weight"] = weight
            skipped.add(id(weight))
    return found


def as_matrix(weight: torch.Tensor) -> torch.Tensor:
    """(rows, columns) view of a weight; a convolution's is (out, in / groups x kernel)."""
    return weight if weight.ndim == 2 else weight.flatten(1)


@dataclass(frozen=True)
class Top:
    """The top singular triples of one matrix, detached: `u` (rows, k), `values` (k) descending, `v` (columns, k)."""

    u: torch.Tensor
    values: torch.Tensor
    v: torch.Tensor


class TopSingularValues:
    """Follows the top `k` singular triples of named matrices while their weights drift.

    Every call does `iterations` rounds `U = orth(W V)`, `V = orth(W^T U)` on each matrix and solves the projected
    problem (Rayleigh-Ritz), whose values err by the square of the angles. Beside the k wanted columns a block has
    `spare` ones, the last of them redrawn at every call: a direction that no column has any part of would otherwise
    never be found. Matrices of one shape share their small factorisations. In float32 or wider, outside autocast.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor], k: int, *, iterations: int = 1, spare: int = 4,
                 seed: int = 0) -> None:  # fmt: skip
        """Args:
            weights: by name; the tensors are read anew at every call.
            k: values a matrix; a matrix with fewer has as many as its smaller side.
            iterations: rounds a call.
            spare: columns beyond k that speed convergence; at least 1.
            seed: of the first blocks and of the redrawn columns.
        """
        if min(k, iterations, spare) < 1:
            raise ValueError(f"k={k}, iterations={iterations}, spare={spare}: all must be at least 1")
        self.weights, self.k, self.iterations, self.spare = dict(weights), k, iterations, spare
        self._generator = torch.Generator().manual_seed(seed)  # on the CPU, so that every device starts alike
        self._blocks = {name: self._draw(weight, self._width(weight)) for name, weight in self.weights.items()}
        shapes: dict[tuple[Any, ...], list[str]] = {}
        for name, weight in self.weights.items():
            shapes.setdefault((*as_matrix(weight).shape, weight.dtype, weight.device), []).append(name)
        self._groups = list(shapes.values())

    def __call__(self) -> dict[str, torch.Tensor]:
        """The top values of each matrix, (k), differentiable: the gradient of value i is `u_i v_i^T`."""
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            return {name: _values(self.weights[name], top) for name, top in self.refresh().items()}

    @torch.no_grad()
    def refresh(self) -> dict[str, Top]:
        """One call's worth of rounds; the triples as they are now."""
        for name, block in self._blocks.items():
            if block.shape[1] > self.k:
                block[:, -1:] = self._draw(self.weights[name], 1)
        found: dict[str, Top] = {}
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            for names in self._groups:
                found |= self._rounds(names)
        return {name: found[name] for name in self.weights}

    def settle(self, limit: int = 500) -> int:
        """Refresh until no value of any matrix moves; returns the calls it took (from a random start, some dozens)."""
        before, still = self.refresh(), 0
        for round_ in range(1, limit):
            now = self.refresh()
            moved = max(float(((top.values - before[name].values).abs() / top.values[0].clamp_min(1e-30)).max())
                        for name, top in now.items())  # fmt: skip
            before, still = now, still + 1 if moved < SETTLED else 0
            if still == STILL_ROUNDS:
                return round_ + 1
        return limit

    def _rounds(self, names: list[str]) -> dict[str, Top]:
        weights = [_wide(as_matrix(self.weights[name].detach())) for name in names]
        v = torch.stack([self._blocks[name] for name in names])
        for _ in range(self.iterations):
            u, _r = torch.linalg.qr(torch.stack([w @ block for w, block in zip(weights, v, strict=True)]))
            v, r = torch.linalg.qr(torch.stack([w.T @ block for w, block in zip(weights, u, strict=True)]))
        # W^T U = V R, so U^T W = R^T V^T: the SVD of the small R^T gives the Ritz triples without a further product.
        left, values, right = torch.linalg.svd(r.mT)
        u, v = u @ left, v @ right.mT
        for index, name in enumerate(names):
            self._blocks[name] = v[index].clone()
        return {name: Top(u=u[index, :, : self.k], values=values[index, : self.k], v=v[index, :, : self.k])
                for index, name in enumerate(names)}  # fmt: skip

    def _width(self, weight: torch.Tensor) -> int:
        rows, columns = as_matrix(weight).shape
        return min(self.k + self.spare, rows, columns)

    def _draw(self, weight: torch.Tensor, columns: int) -> torch.Tensor:
        wide = torch.promote_types(weight.dtype, torch.float32)
        drawn = torch.randn(as_matrix(weight).shape[1], columns, generator=self._generator, dtype=wide)
        drawn /= torch.linalg.vector_norm(drawn, dim=0)
        return drawn.to(weight.device)


def _values(weight: torch.Tensor, top: Top) -> torch.Tensor:
    found: torch.Tensor = _Values.apply(weight, top.u, top.values, top.v)  # type: ignore[no-untyped-call]
    return found


class _Values(torch.autograd.Function):
    """Hands over values that are already known and knows their gradient, so that nothing is multiplied twice."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, u: torch.Tensor, values: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(u, v)
        ctx.shape, ctx.dtype = weight.shape, weight.dtype
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, None, None, None]:
        u, v = ctx.saved_tensors
        return ((u * gradient) @ v.T).reshape(ctx.shape).to(ctx.dtype), None, None, None


def _wide(weight: torch.Tensor) -> torch.Tensor:
    return weight.to(torch.promote_types(weight.dtype, torch.float32))
