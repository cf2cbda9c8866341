"""Optimizers that precondition both sides of a matrix (pytorch-optimizer).

The answer to a lock that makes the problem ill-conditioned. Their state is no flat set of tensors, so a run with them
cannot be resumed.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Sequence
from typing import Any

import torch

from harness.errors import Unavailable
from harness.train_settings import TrainSettings

Params = Sequence[torch.nn.Parameter]
SECOND_BETA = 0.95
"""Decay of their second moments (SOAP's own; 0.999 averages over more steps than a short attack has)."""
REFRESH = 10
"""Steps between new preconditioners of Shampoo and SOAP (the library's 1000 for Shampoo would be never)."""
RMSPROP = 3
"""The library's number for grafting Shampoo on RMSProp, so that one learning rate fits it and AdamW."""
BLOCK, WIDEST = 512, 8192
"""Shampoo's blocks; the longest side that is preconditioned at all (vocabularies are not)."""


def shampoo(params: Params, settings: TrainSettings) -> torch.optim.Optimizer:
    """Shampoo, blocked, grafted on RMSProp."""
    optimizer: torch.optim.Optimizer = library("shampoo").ScalableShampoo(
        params, lr=settings.learning_rate, betas=(settings.adam_beta1, SECOND_BETA), weight_decay=settings.weight_decay,
        decoupled_weight_decay=True, moving_average_for_momentum=True, start_preconditioning_step=REFRESH,
        preconditioning_compute_steps=REFRESH, block_size=BLOCK, shape_interpretation=False,
        no_preconditioning_for_layers_with_dim_gt=WIDEST, graft_type=RMSPROP,
        diagonal_eps=settings.adam_epsilon)  # fmt: skip
    return optimizer


def soap(params: Params, settings: TrainSettings) -> torch.optim.Optimizer:
    """AdamW in the eigenbasis of Shampoo's statistics."""
    optimizer: torch.optim.Optimizer = library("soap").SOAP(
        params, lr=settings.learning_rate, betas=(settings.adam_beta1, SECOND_BETA), eps=settings.adam_epsilon,
        weight_decay=settings.weight_decay, precondition_frequency=REFRESH, max_precondition_dim=WIDEST)  # fmt: skip
    return optimizer


def psgd_kron(params: Params, settings: TrainSettings) -> torch.optim.Optimizer:
    """PSGD with a triangular preconditioner for each side.

    Raises:
        Unavailable: opt_einsum is missing. Without it torch multiplies the preconditioners of a convolution out, all
            sides at once, before the gradient meets one of them: thousands of times the work.
    """
    if not torch.backends.opt_einsum.is_available():
        raise Unavailable("optim=psgd_kron needs opt_einsum (pip install 'lockbench[optim]')")
    optimizer: torch.optim.Optimizer = library("psgd_kron").Kron(
        params, lr=settings.learning_rate, momentum=settings.adam_beta1, weight_decay=settings.weight_decay,
        max_size_triangular=WIDEST)  # fmt: skip
    return optimizer


def library(name: str) -> Any:
    """pytorch_optimizer, for the optimizer `name`.

    Raises:
        Unavailable: it is not installed.
    """
    if importlib.util.find_spec("pytorch_optimizer") is None:
        raise Unavailable(f"optim={name} needs pytorch-optimizer (pip install 'lockbench[optim]')")
    import pytorch_optimizer

    return pytorch_optimizer


def shampoo_bytes(p: torch.Tensor) -> int:
    """Two momenta and the graft's second moment; statistics and root of both sides of every block."""
    if p.ndim < 2 or max(p.shape) > WIDEST:
        return 3 * p.nbytes
    pieces = [[min(BLOCK, side - start) for start in range(0, side, BLOCK)] for side in p.shape]
    return 3 * p.nbytes + 2 * 4 * sum(side**2 for block in itertools.product(*pieces) for side in block)


def soap_bytes(p: torch.Tensor) -> int:
    """Two moments; statistics and eigenvectors of each side."""
    sides = [side for side in p.shape if side <= WIDEST] if p.ndim >= 2 else []
    return 2 * p.nbytes + 2 * p.element_size() * sum(side**2 for side in sides)


def psgd_kron_bytes(p: torch.Tensor) -> int:
    """Momentum; a triangle for each side, or a diagonal where the side is too long or alone."""
    whole = [p.ndim >= 2 and 1 < side <= WIDEST for side in p.shape]
    return p.nbytes + 4 * sum(side**2 if full else side for side, full in zip(p.shape, whole, strict=True))
