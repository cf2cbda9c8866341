"""The lock on a classifier: Algorithm 1 on its own task's training data, as in the paper's Table 1."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import TYPE_CHECKING, Any

import torch

from defenses.specdef import SpecDefSettings
from defenses.specdef.diagnostics import sharpness, spectra
from defenses.specdef.lock import DIVERGED, about, followed, inflatable, inflating
from harness.divergence import divergence
from harness.errors import Outcome
from harness.meters.memory import module_bytes
from harness.plugins import Locked, Released
from harness.seeds import derive
from harness.tasks.classification import logits_of
from harness.training import Batch, LossFn, train
from harness.utility.classifier import own_fidelity

if TYPE_CHECKING:
    from harness.plugins import LockContext
    from harness.tasks.classification import ClassificationTask

SHARPNESS_EXAMPLES = 64
"""Examples of the selection split on which the curvature is estimated."""


def lock(base: Released, own: ClassificationTask, settings: SpecDefSettings, context: LockContext) -> Locked:
    """Train `base.model` (in place) to the same classifier with larger top singular values.

    The caller's meter stage is charged; what only the report needs is not.

    Raises:
        UsageError: the model has no matrices.
        Outcome: training diverged.
    """
    model, weights = inflatable(base, context)
    teacher = copy.deepcopy(model).requires_grad_(False)
    unlocked = dataclasses.replace(base, model=teacher, digest="base")
    probe = _batch(own, base, settings, context)

    def measured() -> dict[str, Any]:
        with context.meter.pause():
            curvature = sharpness(model, lambda: own.loss_fn(model, probe), context.seed)
            return spectra(weights, settings.k) | {"sharpness": curvature}

    before = measured()
    top = followed(weights, settings, context)
    loss = inflating(retain_loss(teacher, own, settings), top, settings.alpha)
    result = train(model, own.batches(base.tokenizer, settings, seed=derive(context.seed, "specdef")), settings,
                   context, label="specdef", loss_fn=loss, beside_bytes=module_bytes(teacher))  # fmt: skip
    with context.meter.pause():
        heldout = measure(unlocked, dataclasses.replace(base, model=model, digest="locked"), own)
    report: dict[str, Any] = {
        "steps": result.steps, "losses": list(result.losses), "before": before, "after": measured(), "heldout": heldout,
    }  # fmt: skip
    model.config.specdef = about(base, settings, report)
    return Locked(model=model, report=report)


def retain_loss(teacher: Any, own: ClassificationTask, settings: SpecDefSettings) -> LossFn:
    """The own task's loss on the batch, KL(base, model) on it, or their sum; in nats an example."""

    def loss(module: torch.nn.Module, batch: Batch) -> torch.Tensor:
        if settings.retain == "task":
            return own.loss_fn(module, batch)
        with torch.no_grad():
            target = logits_of(teacher, batch)
        ours = logits_of(module, batch)
        kl = divergence(target, ours)
        if settings.retain == "kl":
            return kl
        return kl + torch.nn.functional.cross_entropy(ours.float(), batch["labels"])

    return loss


def measure(base: Released, locked: Released, own: ClassificationTask) -> dict[str, Any]:
    """KL, top-1 agreement and accuracies on the own task's selection split.

    Raises:
        Outcome: logits are not finite: training diverged.
    """
    examples = own.examples("selection")
    accuracies = {name: sum(item.score for item in own.score(side, "selection")) / len(examples)
                  for name, side in (("base", base), ("locked", locked))}  # fmt: skip
    found = own_fidelity(base, locked, examples, own)
    if not math.isfinite(found["kl"]) or not all(bool(p.isfinite().all()) for p in locked.model.parameters()):
        raise Outcome(DIVERGED)
    return {"kl": found["kl"], "top1_agreement": found["top1_agreement"], "items": len(examples),
            **{f"accuracy_{name}": value for name, value in accuracies.items()}}  # fmt: skip


def _batch(own: ClassificationTask, base: Released, settings: SpecDefSettings, context: LockContext) -> Batch:
    examples = own.examples("selection")[:SHARPNESS_EXAMPLES]
    inputs = own.encoder(base.tokenizer, examples, settings.block_size)(list(range(len(examples))))
    batch = {**inputs, "labels": torch.tensor([example.label for example in examples])}
    return {key: value.to(context.device) for key, value in batch.items()}
