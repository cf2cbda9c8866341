"""Module-wise distillation: every net learns the input-output map of the MLP it replaces, all layers side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from defenses.dlr import DLRSettings
from defenses.dlr.build import Pair, Swap
from harness.errors import Outcome
from harness.train_settings import TrainSettings
from harness.training import Batch, train

if TYPE_CHECKING:
    import numpy as np

    from harness.plugins import LockContext

MIN_POWER = 1e-12
"""Floor of a target's variance, for an MLP that does nothing."""


class Students(nn.Module):
    """Holds the nets and nothing else, so that no optimizer ever sees the frozen base."""

    def __init__(self, nets: Sequence[nn.Module]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def forward(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Each net on its own input."""
        return [net(x) for net, x in zip(self.nets, inputs, strict=True)]


class Patience:
    """Early stop: checks the held-out error now and then, keeps the best weights, gives up once it keeps rising.

    A check is compared with the one before, not with the best: at the peak of its learning rate a stage is worse than
    where it began for a long while, and falls below only as the rate does.
    """

    def __init__(self, students: Students, error: Callable[[], float], settings: DLRSettings) -> None:
        self.students, self.error, self.settings = students, error, settings
        self.best, self.rising = float("inf"), 0
        self.history: list[tuple[int, float]] = []
        self._kept: dict[str, torch.Tensor] = {}
        self.check(0)

    def __call__(self, step: int) -> bool:
        """After a step of training; True ends it."""
        return step % self.settings.check_every == 0 and self.check(step)

    def check(self, step: int) -> bool:
        """Measure now; True when the error has risen at `patience` checks in a row."""
        if self.history and self.history[-1][0] == step:
            return False
        error = self.error()
        self.rising = 0 if not self.history or error < self.history[-1][1] else self.rising + 1
        self.history.append((step, error))
        if error < self.best:
            self.best = error
            self._kept = {name: value.detach().clone() for name, value in self.students.state_dict().items()}
        return self.rising >= self.settings.patience

    def restore(self, step: int) -> None:
        """After the last step: the best weights seen come back.

        Raises:
            Outcome: the held-out error was never finite.
        """
        self.check(step)
        if not self._kept:
            raise Outcome("defense dlr: the nets diverge, the held-out error is not finite; a norm (rms), fewer blocks "
                          "or a lower learning rate may help")  # fmt: skip
        self.students.load_state_dict(self._kept)


def stage(
    label: str, swap: Swap, tokens: np.ndarray, context: LockContext, settings: DLRSettings, *, steps: int,
    learning_rate: float, loss: Callable[[Students, torch.Tensor], torch.Tensor], error: Callable[[], float],
) -> dict[str, Any]:  # fmt: skip
    """One stage through the shared training loop: only the nets train, the best weights by held-out `error` stay.

    Args:
        label: name of the progress bar.
        swap: base and nets.
        tokens: what to train on.
        context: of the lock.
        settings: of the lock.
        steps: 0 skips the stage.
        learning_rate: peak of a cosine that ends at 0.
        loss: (students, token ids) to a scalar.
        error: held-out error, smaller is better.

    Returns:
        JSON for the report: steps done and held-out errors by step.
    """
    from harness.packing import PackedBlocks
    from harness.seeds import derive

    if not steps:
        return {"steps": 0, "heldout": []}
    students = Students(swap.nets)
    batches = PackedBlocks(tokens, block_size=settings.block_size, batch_size=settings.batch_size,
                           seed=derive(context.seed, label))  # fmt: skip
    knobs = TrainSettings(learning_rate=learning_rate, max_steps=steps, eval_points=0, optim=settings.optim,
                          adam_beta2=0.99,
                          block_size=settings.block_size, per_device_train_batch_size=settings.batch_size)  # fmt: skip

    def loss_fn(model: nn.Module, batch: Batch) -> torch.Tensor:
        return loss(students, batch["input_ids"])

    patience = Patience(students, error, settings)
    result = train(students, batches, knobs, context, label=label, loss_fn=loss_fn, stop=patience)
    patience.restore(result.steps)
    return {"steps": result.steps, "heldout": patience.history}


def relative_errors(outputs: Sequence[torch.Tensor], targets: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Squared error over the variance of the target, a scalar for each layer."""
    errors = []
    for output, target in zip(outputs, targets, strict=True):
        flat = target.reshape(-1, target.shape[-1])
        power = (flat - flat.mean(0)).square().mean().clamp_min(MIN_POWER)
        errors.append((output - target).square().mean() / power)
    return errors


def module_loss(swap: Swap) -> Callable[[Students, torch.Tensor], torch.Tensor]:
    """Mean over layers of the relative error on the base's own hidden states; one teacher pass serves all layers."""

    def loss(students: Students, ids: torch.Tensor) -> torch.Tensor:
        pairs, _ = swap.capture(ids)
        outputs = students([x for x, _ in pairs])
        return torch.stack(relative_errors(outputs, [y for _, y in pairs])).mean()

    return loss


def cascade_loss(swap: Swap) -> Callable[[Students, torch.Tensor], torch.Tensor]:
    """As `module_loss`, on the locked model's own hidden states: each net learns what its MLP would say to them."""

    def loss(students: Students, ids: torch.Tensor) -> torch.Tensor:
        pairs, _ = swap.capture(ids, locked=True)
        inputs = [x for x, _ in pairs]
        with torch.no_grad():
            targets = [site.module(x) for site, x in zip(swap.sites, inputs, strict=True)]
        return torch.stack(relative_errors(students(inputs), targets)).mean()

    return loss


@torch.no_grad()
def heldout_errors(swap: Swap, batches: Sequence[torch.Tensor]) -> list[float]:
    """Relative error of each layer on held-out text."""
    students, rows = Students(swap.nets), []
    for ids in batches:
        pairs: list[Pair] = swap.capture(ids)[0]
        rows.append(torch.stack(relative_errors(students([x for x, _ in pairs]), [y for _, y in pairs])))
    errors: list[float] = torch.stack(rows).mean(0).tolist()
    return errors
