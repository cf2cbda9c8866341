"""Optimizers that look at the curvature of the loss: Sophia and AdaHessian (pytorch-optimizer), L-BFGS (torch).

They need more than gradients, so each has an engine: `second_order` gives the first two an estimate of the Hessian's
diagonal, `line_search` evaluates the loss again for the third.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from harness.optim.kronecker import SECOND_BETA, library
from harness.train_settings import TrainSettings

Params = Sequence[torch.nn.Parameter]
HESSIAN_DIAGONAL = ("sophia", "adahessian")
"""Their step takes an estimate of the Hessian's diagonal beside the gradients."""
SOPHIA_GAMMA = 0.01
"""Sophia's gamma: a coordinate moves by `learning_rate * clip(m / (gamma h), -1, 1)` (Liu et al. 2023, Algorithm 3)."""
UNIT = {"adahessian": 50.0, "lbfgs": 300.0}
"""What their rates are multiplied with, so that AdamW's learning rate is a start for them too. An L-BFGS step is a
quasi-Newton step, whose natural rate is 1; the line search corrects it."""
HISTORY = 10
"""Pairs of L-BFGS (torch's 100 would be a hundred copies of the model, twice)."""
ITERATIONS, EVALUATIONS = 4, 7
"""L-BFGS iterations on the batch of one step, and evaluations of its loss after which no further one is begun."""


def sophia(params: Params, settings: TrainSettings) -> torch.optim.Optimizer:
    """Sophia-H. Its estimates are fresh at every step, so they are averaged over fewer than the paper's."""
    optimizer: torch.optim.Optimizer = library("sophia").SophiaH(
        params, lr=settings.learning_rate, betas=(settings.adam_beta1, SECOND_BETA), weight_decay=settings.weight_decay,
        p=1.0, eps=settings.adam_epsilon)  # fmt: skip
    return optimizer


def adahessian(params: Params, settings: TrainSettings) -> torch.optim.Optimizer:
    """AdaHessian; its spatial averaging, over what feeds one output, is done by the engine."""
    optimizer: torch.optim.Optimizer = library("adahessian").AdaHessian(
        params, lr=settings.learning_rate, betas=(settings.adam_beta1, settings.adam_beta2),
        weight_decay=settings.weight_decay, eps=settings.adam_epsilon)  # fmt: skip
    return optimizer


def lbfgs(params: Params, settings: TrainSettings) -> torch.optim.Optimizer:
    """L-BFGS with a strong-Wolfe line search."""
    return torch.optim.LBFGS(params, lr=settings.learning_rate, max_iter=ITERATIONS, max_eval=EVALUATIONS,
                             history_size=HISTORY, line_search_fn="strong_wolfe")  # fmt: skip


def diagonal_bytes(p: torch.Tensor) -> int:
    """Averages of the gradient and of the Hessian's diagonal, and the newest estimate."""
    return 3 * p.nbytes


def lbfgs_bytes(p: torch.Tensor) -> int:
    """The full history of pairs, the last direction and the gradient before it."""
    return (2 * HISTORY + 2) * p.nbytes
