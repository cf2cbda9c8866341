"""Undoing SpecDef: which singular values are inflated, bringing them down, distilling the function back."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from attacks.common import lock_settings, unfreeze
from attacks.share import Share
from defenses.specdef.spectrum import Top, TopSingularValues, as_matrix, matrices
from harness.divergence import divergence
from harness.finetune import task_blocks
from harness.meters.memory import module_bytes
from harness.packing import PackedBlocks
from harness.sampling import sample_blocks
from harness.seeds import derive
from harness.train_settings import TrainSettings
from harness.training import Batch, train

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from attacks.undo_specdef import UndoSpecDefSettings
    from harness.plugins import AttackContext, Released

ROUNDS = 40
"""Rounds of power iteration: values that stick out are found in a few, and how dense the bulk is does not matter."""


def inflated_values(released: Released) -> int | None:
    """How many values of every matrix SpecDef inflated, as the release says; None where it names no SpecDef."""
    k: int | None = (lock_settings(released, "specdef") or {}).get("k")
    return k


def undo(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: UndoSpecDefSettings,
         context: AttackContext, known: int | None = None) -> dict[str, Any]:  # fmt: skip
    """Repair the spectra of `model` (in place) and its function; charged to the stage `undo`.

    Args:
        model: locked.
        tokenizer: its.
        settings: `k` is taken before `known`.
        context: of the attack.
        known: inflated values a matrix that the release tells of; None: values that stick out are looked for.

    Returns:
        JSON for the report: the number of matrices and their median gap, and by repaired matrix the values before and
        the ceiling they came down to; the steps and losses of the distillation.
    """
    if settings.repair == "none":
        return {"repaired": {}}
    with context.meter.stage("undo"):
        share = Share(context.meter)
        sides = [min(as_matrix(weight).shape) for weight in matrices(model).values()]
        told = known if known is not None and 2 * known <= max(sides, default=0) else None  # else that is no lock's k
        inflated = settings.k or told
        found = spectra(model, inflated or settings.outliers, context, share)
        deformed, gap = outlying(found, settings)
        if inflated:
            deformed = {name: inflated for name, top in found.items() if len(top.values) > inflated}
        report: dict[str, Any] = {"matrices": len(found), "median_gap": gap, "repaired": {}}
        if not deformed:
            return report
        locked = copy.deepcopy(model)
        weights = matrices(model)
        for name, count in deformed.items():
            report["repaired"][name] = lower(weights[name], found[name], count, settings.repair)
        return report | distil(model, locked, tokenizer, settings, context, share)


def spectra(model: PreTrainedModel, outliers: int, context: AttackContext, share: Share) -> dict[str, Top]:
    """The top singular triples of every matrix, one more than may be outlying; none if the budget is too small."""
    weights = {name: weight.detach() for name, weight in matrices(model).items() if bool(weight.any())}
    top = TopSingularValues(weights, outliers + 1, seed=derive(context.seed, "spectra"))
    columns = outliers + 1 + top.spare
    flops = 4 * columns * (ROUNDS + 1) * sum(weight.numel() for weight in weights.values())
    if not weights or not share.affordable(flops, fraction=0.5):
        return {}
    with context.meter.measure():
        top.settle(ROUNDS)
        return top.refresh()


def outlying(found: Mapping[str, Top], settings: UndoSpecDefSettings) -> tuple[dict[str, int], float]:
    """How many values of each matrix are outlying (matrices with some only), and the model's median gap.

    A matrix's gap is its largest ratio of neighbours among the first `outliers + 1` values; the values above it are
    outlying when it is at least `outlier_ratio`. Trained matrices may have such a gap, but not the median one does.
    """
    gaps: dict[str, tuple[float, int]] = {}
    for name, top in found.items():
        values = top.values.clamp_min(1e-12)
        if len(values) > 1:
            ratios = values[:-1] / values[1:]
            gaps[name] = float(ratios.max()), int(ratios.argmax()) + 1
    middle = median(gap for gap, _ in gaps.values()) if gaps else 1.0
    if middle < settings.outlier_ratio:
        return {}, middle
    return {name: count for name, (gap, count) in gaps.items() if gap >= settings.outlier_ratio}, middle


@torch.no_grad()
def lower(weight: torch.Tensor, top: Top, count: int, repair: str) -> dict[str, Any]:
    """Bring the first `count` singular values of `weight` (in place) down to the one that follows them."""
    values, ceiling = top.values[:count], top.values[count]
    target = ceiling.expand(count) if repair == "clip" else values * (ceiling / values[0])
    as_matrix(weight).sub_((top.u[:, :count] * (values - target)) @ top.v[:, :count].T)
    return {"values": values.tolist(), "ceiling": float(ceiling)}


def distil(model: PreTrainedModel, locked: PreTrainedModel, tokenizer: PreTrainedTokenizerBase,
           settings: UndoSpecDefSettings, context: AttackContext, share: Share) -> dict[str, Any]:  # fmt: skip
    """KL to the locked model on the task's text and on text it samples, every parameter of `model` trained.

    Of a classifier, see `attacks.feature_distil`.
    """
    unfreeze(model)
    if context.task.kind != "causal_lm":
        from attacks.feature_distil import distil_features

        return distil_features(model, locked, tokenizer, settings, context, share)
    count, size, rows = locked.num_parameters(), settings.block_size, settings.distil_batch_size
    sampled = min(settings.sampled_tokens, share.affordable(2 * count, fraction=0.25)) if settings.distil_steps else 0
    own = sample_blocks(locked, sampled, size, context)
    steps = min(settings.distil_steps, share.steps(), share.affordable(8 * count) // (rows * size))
    if not steps:
        return {"distil_steps": 0}
    task = task_blocks(tokenizer, context, settings.block_size)
    order = np.random.default_rng(derive(context.seed, "distil")).permutation(len(task))
    wanted = steps * rows  # no more of the task's text than there is use for: the rest would crowd out the samples
    blocks = torch.cat([task[order[: max(wanted - len(own), wanted // 2)]], own])
    batches = PackedBlocks(blocks.flatten().numpy(), block_size=size, batch_size=rows,
                           seed=derive(context.seed, "distil"))  # fmt: skip
    knobs = TrainSettings(learning_rate=settings.distil_learning_rate, max_steps=steps, optim=settings.distil_optim,
                          eval_points=0, per_device_train_batch_size=rows, block_size=size,
                          gradient_checkpointing=settings.gradient_checkpointing,
                          save_steps=settings.save_steps)  # fmt: skip

    def loss(module: torch.nn.Module, batch: Batch) -> torch.Tensor:
        ids = batch["input_ids"]
        with torch.no_grad():
            target = locked(input_ids=ids, use_cache=False).logits
        return divergence(target, module(input_ids=ids, use_cache=False).logits)

    result = train(model, batches, knobs, context, label="distil", loss_fn=loss, stop=lambda step: share.late(),
                   beside_bytes=module_bytes(locked))  # fmt: skip
    return {"distil_steps": result.steps, "distil_losses": [result.losses[0], result.losses[-1]],
            "tokens": blocks.numel()}  # fmt: skip
