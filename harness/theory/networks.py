"""The three networks of SpecDef's Figure 2 as functions of named matrices, float64 (workshop paper, appendix B.1).

Not in the paper and ours: no biases (Xavier sets none), 4 outputs, the CNN as one-dimensional convolutions over the 4
inputs with 4 channels and tanh after every layer but the last, the transformer as Theorem 2.2 defines it (no
normalisation) with one head and the last token read out.

The theorems meet a matrix W inside a Jacobian `outer' W inner'`: a `Site` names W, the matrix whose Hessian block that
is, and the two functions around W.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import pad, softmax

Params = Mapping[str, Tensor]
Forward = Callable[[Params, Tensor], Tensor]
"""(params, examples (..., *inputs)) to (..., features)."""

DEPTH, HIDDEN, WIDTH, CHANNELS, TOKENS, OUTPUTS = 4, 8, 4, 4, 2, 4
STEP = 0.5
"""The transformer's residual step `1 / (2 L)` at one layer."""


@dataclass(frozen=True)
class Site:
    """Every path from the matrix `block` to the output passes through the matrix `weight`."""

    weight: str
    """The matrix whose singular values are changed."""
    block: str
    """The matrix whose block of the Hessian is looked at."""
    inner: Forward
    """(params, example) to the input of `weight`; depends on `block`."""
    linear: Callable[[Tensor, Tensor], Tensor]
    """(weight, its input) to its output; linear in both."""
    outer: Callable[[Params, Tensor, Tensor], Tensor]
    """(params, example, output of `weight`) to the network's output."""
    piecewise_linear: bool
    """Whether the output is piecewise linear in `block`, so that its Hessian block has no residual term."""


@dataclass(frozen=True)
class Network:
    """One architecture."""

    name: str
    shapes: dict[str, tuple[int, int]]
    """Matrices by name, (out, in)."""
    inputs: tuple[int, ...]
    """Shape of one example, as `data` draws it."""
    forward: Forward
    sites: tuple[Site, ...]

    def init(self, seed: int) -> dict[str, Tensor]:
        """Xavier-uniform matrices."""
        generator = torch.Generator().manual_seed(seed)
        return {name: (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1) * (6 / sum(shape)) ** 0.5
                for name, shape in self.shapes.items()}  # fmt: skip

    def data(self, seed: int, examples: int = 64) -> tuple[Tensor, Tensor]:
        """Gaussian inputs (examples, ...) and targets (examples, outputs)."""
        generator = torch.Generator().manual_seed(seed)
        draw = [torch.randn((examples, *shape), generator=generator, dtype=torch.float64)
                for shape in (self.inputs, (OUTPUTS,))]  # fmt: skip
        return draw[0], draw[1]

    def loss(self, params: Params, x: Tensor, y: Tensor) -> Tensor:
        """Mean squared error over examples and outputs: a scalar, or (runs,) where matrices and data lead with runs."""
        return (self.forward(params, x) - y).square().mean((-2, -1))


def rescaled(weight: Tensor, factor: float, top: int | None = None) -> Tensor:
    """`weight` with its `top` largest singular values (None: all) multiplied by `factor`."""
    u, s, v = torch.linalg.svd(weight, full_matrices=False)
    scale = torch.ones_like(s)
    scale[:top] = factor
    changed: Tensor = (u * (s * scale)) @ v
    return changed


def chain(
    name: str, layers: Mapping[str, tuple[int, int]], activation: Callable[[Tensor], Tensor], *, piecewise_linear: bool
) -> Network:
    """Layer after layer with an activation between; those named `conv*` slide over positions with padding 1.

    Args:
        name: of the network.
        layers: matrices in order, (out, in); a convolution's are (channels, 3 * channels before).
        activation: between layers.
        piecewise_linear: whether it is.
    """
    names = list(layers)

    def linear(layer: str) -> Callable[[Tensor, Tensor], Tensor]:
        return convolve if layer.startswith("conv") else apply

    def upto(count: int) -> Forward:
        def run(params: Params, x: Tensor) -> Tensor:
            for layer in names[:count]:
                x = activation(linear(layer)(params[layer], x))
            return x

        return run

    def after(index: int) -> Callable[[Params, Tensor, Tensor], Tensor]:
        def run(params: Params, x: Tensor, z: Tensor) -> Tensor:
            for layer in names[index + 1 :]:
                z = linear(layer)(params[layer], activation(z))
            return z

        return run

    def forward(params: Params, x: Tensor) -> Tensor:
        return linear(names[-1])(params[names[-1]], upto(len(names) - 1)(params, x))

    sites = [Site(weight, block, upto(index), linear(weight), after(index), piecewise_linear)
             for index, weight in enumerate(names) for block in names[:index]]  # fmt: skip
    return Network(name, dict(layers), (WIDTH,), forward, tuple(sites))


def apply(weight: Tensor, x: Tensor) -> Tensor:
    """(out, in) and (..., in) to (..., out); or (runs, out, in) and (runs, ..., in)."""
    return x @ _aligned(weight, x.ndim).mT


def convolve(weight: Tensor, x: Tensor) -> Tensor:
    """One-dimensional convolution, kernel 3, padding 1, on flattened (channels, positions)."""
    channels = weight.shape[-1] // 3
    positions = x.shape[-1] // channels
    padded = pad(x.reshape(*x.shape[:-1], channels, positions), (1, 1))
    windows = torch.cat([padded[..., shift : shift + positions] for shift in range(3)], dim=-2)
    return (_aligned(weight, windows.ndim) @ windows).flatten(-2)


def _aligned(weight: Tensor, dimensions: int) -> Tensor:
    """`weight` with dimensions of size 1 after its runs, so that it broadcasts over examples."""
    between = [1] * (dimensions - weight.ndim)
    return weight.reshape(*weight.shape[:-2], *between, *weight.shape[-2:])


def mlp(activation: Callable[[Tensor], Tensor] = torch.relu, *, piecewise_linear: bool = True) -> Network:
    """Four layers, hidden width 8, ReLU."""
    widths = [WIDTH, *[HIDDEN] * (DEPTH - 1), OUTPUTS]
    layers = {f"layer{index}": (after, before) for index, (before, after) in enumerate(pairwise(widths), 1)}
    return chain("mlp", layers, activation, piecewise_linear=piecewise_linear)


def cnn() -> Network:
    """Two convolutions (kernel 3, padding 1), then two layers with hidden width 8, tanh."""
    layers = {"conv1": (CHANNELS, 3), "conv2": (CHANNELS, 3 * CHANNELS),
              "layer1": (HIDDEN, CHANNELS * WIDTH), "layer2": (OUTPUTS, HIDDEN)}  # fmt: skip
    return chain("cnn", layers, torch.tanh, piecewise_linear=False)


def transformer() -> Network:
    """One encoder block of Theorem 2.2, equations 1 to 6: one head, residual steps of 1/2, two tokens of 4.

    Only the last token is read out, and with one layer no other token's output matters.
    """
    square, shapes = (WIDTH, WIDTH), {"W1": (HIDDEN, WIDTH), "W2": (WIDTH, HIDDEN)}

    def value(params: Params, x: Tensor) -> Tensor:
        return apply(params["V"], mixed(params, x))

    def hidden(params: Params, x: Tensor) -> Tensor:
        return torch.relu(apply(params["W1"], attended(x, apply(params["O"], value(params, x)))))

    def outer(params: Params, x: Tensor, z: Tensor) -> Tensor:
        u = attended(x, z)
        return u + STEP * apply(params["W2"], torch.relu(apply(params["W1"], u)))

    def outer_hidden(params: Params, x: Tensor, z: Tensor) -> Tensor:
        return attended(x, apply(params["O"], value(params, x))) + STEP * z

    def forward(params: Params, x: Tensor) -> Tensor:
        return outer(params, x, apply(params["O"], value(params, x)))

    sites = [Site("O", block, value, apply, outer, block == "V") for block in "QKV"]
    sites.append(Site("W2", "W1", hidden, apply, outer_hidden, True))
    return Network("transformer", dict.fromkeys("QKVO", square) | shapes, (TOKENS, WIDTH), forward, tuple(sites))


def mixed(params: Params, x: Tensor) -> Tensor:
    """`Z softmax((K Z)' Q z)` for the last token z: the tokens, weighted by attention."""
    scores = apply(params["K"], x) @ apply(params["Q"], x[..., -1, :])[..., None]
    return (softmax(scores, dim=-2) * x).sum(-2)


def attended(x: Tensor, z: Tensor) -> Tensor:
    """The residual stream of the last token after attention."""
    return x[..., -1, :] + STEP * z
