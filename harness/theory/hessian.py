"""The exact Hessian of a toy network's loss, its blocks, and their Gauss-Newton part, by autograd in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.theory.networks import Network, Params


def hessian(network: Network, params: Params, x: Tensor, y: Tensor) -> Tensor:
    """Second derivatives of the loss by all matrices, in the order of `shapes`: (parameters, parameters)."""
    names = list(network.shapes)
    sizes = [params[name].numel() for name in names]
    flat = torch.cat([params[name].flatten() for name in names])

    def loss(values: Tensor) -> Tensor:
        parts = zip(names, torch.split_with_sizes(values, sizes), strict=True)
        return network.loss({name: part.view(network.shapes[name]) for name, part in parts}, x, y)

    found: Tensor = torch.func.hessian(loss)(flat)
    return found


def block_of(network: Network, whole: Tensor, name: str) -> Tensor:
    """The diagonal block of one matrix inside what `hessian` returned."""
    start = 0
    for other, shape in network.shapes.items():
        size = shape[0] * shape[1]
        if other == name:
            return whole[start : start + size, start : start + size]
        start += size
    raise ValueError(f"block {name!r}: allowed are {', '.join(network.shapes)}")


def jacobians(network: Network, params: Params, x: Tensor, name: str) -> Tensor:
    """Derivatives of the outputs with respect to one matrix: (examples, outputs, entries of the matrix)."""

    def one(weight: Tensor, example: Tensor) -> Tensor:
        return network.forward({**params, name: weight}, example)

    found: Tensor = torch.func.vmap(torch.func.jacrev(one), in_dims=(None, 0))(params[name], x)
    return found.flatten(2)


def gauss_newton(network: Network, params: Params, x: Tensor, name: str) -> Tensor:
    """`2 / (n p) sum_x J_x' J_x`: the block without the term of second derivatives of the network times residuals."""
    jacobian = jacobians(network, params, x, name).flatten(0, 1)
    return 2 / len(jacobian) * jacobian.T @ jacobian


def largest(matrix: Tensor) -> float:
    """The largest singular value."""
    return float(torch.linalg.matrix_norm(matrix, 2))
