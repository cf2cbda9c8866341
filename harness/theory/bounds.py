"""Lower bounds on the Hessian's largest singular value from those of one weight matrix (SpecDef, Theorems 2.1 and 2.2).

All start as the paper's proof does: the Hessian is at least as large as any diagonal block, the block's Gauss-Newton
part is `2 / (n p) sum_x J_x' J_x`, and for each example `J_x = L W R` with W the matrix at hand. A sum of positive
matrices is at least as large as each, hence the maximum over examples, divided by n. The proof drops the block's other
part (second derivatives of the network times residuals). It is zero where the network is piecewise linear in the block,
and there the bounds are theorems; for tanh and softmax they are not (a test has a network of one unit that breaks
Theorem 2.1).

Singular values are counted in the dimension they act on: a matrix that loses a dimension has gain 0, even though
numerical libraries report `min(rows, columns)` values and a last one above 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.theory.networks import Network, Params, Site

_ZERO = 1e-12
"""Singular values below this share of the largest are rounding."""


@dataclass(frozen=True)
class Bounds:
    """Lower bounds on sigma_max of the block, each a maximum over examples; 0 is vacuous."""

    simple: float
    """Theorem 2.1: `sigma_max(W) sigma_min(A)`, A the other factors of `R' W' L' L W R` (the second W included)."""
    sum_form: float
    """Remark A.3 on W R, and the smallest gain of L: `(sigma_min(L) max_k mean_{i<=k} s_i(W) s_{n-i+1}(R))^2`."""
    index_form: float
    """Ours, from Horn's inequality: `max (sigma_a(L) sigma_b(W) sigma_c(R))^2` over `a + b + c` = inner widths + 1."""
    examples: float
    """No bound on factors: `max_x sigma_max(J_x)^2`; what replacing the mean over examples by a maximum leaves."""


def values(matrix: Tensor, length: int) -> Tensor:
    """Singular values, largest first, (..., length): cut or filled up with zeros, rounding errors set to 0."""
    found = torch.linalg.svdvals(matrix)
    found = torch.where(found > _ZERO * found[..., :1], found, 0.0)[..., :length]
    return torch.nn.functional.pad(found, (0, length - found.shape[-1]))


def row_gain(matrix: Tensor) -> Tensor:
    """Least `|M' v|` over unit v, (...): the last of as many singular values as there are rows."""
    return values(matrix, matrix.shape[-2])[..., -1]


def simple_bound(left: Tensor, weight: Tensor, right: Tensor) -> Tensor:
    """`sigma_max(W) sigma_min(A)` for `sigma_max(M' M)`, `M = L W R`, split as in the proof of Theorem 2.1.

    `M' M = R' W' (L' M)`, so its norm is at least (least gain of R') sigma_max(W) (least gain of (L' M)').

    Args:
        left: L, (..., outputs, p).
        weight: W, (p, q).
        right: R, (..., q, entries).
    """
    found: Tensor = torch.linalg.matrix_norm(weight, 2) * row_gain(right) * row_gain(left.mT @ left @ weight @ right)
    return found


def sum_bound(x: Tensor, y: Tensor) -> Tensor:
    """Remark A.3 for `sigma_max(X Y)`, the best k: a sum of k singular values is at most k times the largest.

    Args:
        x: (..., m, n).
        y: (..., n, q).
    """
    n = y.shape[-2]
    terms = values(x, n) * values(y, n).flip(-1)
    best: Tensor = (terms.cumsum(-1) / torch.arange(1, n + 1)).amax(-1)
    return best


def index_bound(left: Tensor, weight: Tensor, right: Tensor) -> Tensor:
    """For `sigma_max(L W R)`: the largest `sigma_a(L) sigma_b(W) sigma_c(R)` with `a + b + c = p + q + 1`.

    From `sigma_{i+j-n}(X Y) >= sigma_i(X) sigma_j(Y)`, twice. b = 1 leaves the smallest singular values of L and R,
    as in the simple bound; with L = 1 and R a ReLU's mask with z dead units it is `sigma_{z+1}(W)`.
    """
    p, q = weight.shape
    first, middle, last = values(left, p), values(weight, min(p, q)), values(right, q)
    best = torch.zeros_like(first[..., 0] * last[..., 0])
    for b in range(1, min(p, q) + 1):
        for a in range(max(1, p + 1 - b), p + 1):
            best = torch.maximum(best, first[..., a - 1] * middle[b - 1] * last[..., p + q - a - b])
    return best


def factors(site: Site, params: Params, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """L (examples, outputs, p), W (p, q) and R (examples, q, entries of the block) of each example's Jacobian.

    A convolution's W is the matrix of the whole map, positions included.
    """
    weight = params[site.weight]

    def inner(block: Tensor, example: Tensor) -> Tensor:
        return site.inner({**params, site.block: block}, example)

    def outer(z: Tensor, example: Tensor) -> Tensor:
        return site.outer(params, example, z)

    entered = site.inner(params, x)
    made = site.linear(weight, entered)
    right = torch.func.vmap(torch.func.jacrev(inner), in_dims=(None, 0))(params[site.block], x)
    left = torch.func.vmap(torch.func.jacrev(outer))(made, x)
    matrix: Tensor = torch.func.jacrev(site.linear, argnums=1)(weight, entered[0])
    return left, matrix, right.flatten(2)


def block_bounds(site: Site, params: Params, x: Tensor) -> Bounds:
    """The bounds on sigma_max of the block `site.block`, from the singular values of `site.weight`.

    Args:
        site: which matrix and which block.
        params: the network's matrices.
        x: (examples, ...).
    """
    left, weight, right = factors(site, params, x)
    scale = 2 / (len(x) * left.shape[1])
    found = (
        simple_bound(left, weight, right),
        (values(left, weight.shape[0])[..., -1] * sum_bound(weight, right)).square(),
        index_bound(left, weight, right).square(),
        torch.linalg.matrix_norm(left @ weight @ right, 2).square(),
    )
    return Bounds(*(scale * float(each.max()) for each in found))


def best_bounds(network: Network, params: Params, x: Tensor, weight: str, *, proven: bool = False) -> Bounds | None:
    """The largest of each bound over all blocks that `weight` is a factor of; None if there is no such block.

    Args:
        network: the architecture.
        params: its matrices.
        x: (examples, ...).
        weight: the matrix whose singular values count.
        proven: only blocks in which the network is piecewise linear.
    """
    sites = [site for site in network.sites if site.weight == weight and (site.piecewise_linear or not proven)]
    found = [block_bounds(site, params, x) for site in sites]
    if not found:
        return None
    return Bounds(*(max(getattr(each, name) for each in found) for name in Bounds.__dataclass_fields__))


def input_side_bound(outer_gain: float, weight: Tensor, entered: Tensor, outputs: int) -> float:
    """For a block whose inputs are `W c_x`: `2 / (n p) g^2 (sigma_max(W) sigma_min(C))^2`, all examples together.

    Args:
        outer_gain: g, the least gain over examples of the map from the block's output to the network's.
        weight: W, (p, q).
        entered: C, (q, examples), the inputs of W.
        outputs: of the network.
    """
    gain = outer_gain * float(torch.linalg.matrix_norm(weight, 2)) * float(row_gain(entered))
    return 2 / (entered.shape[1] * outputs) * gain**2
