"""The lock from end to end: follow the spectra, train on Algorithm 1's loss, measure what that did."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from defenses.dlr.data import heldout_batches
from defenses.dlr.polish import heldout_fidelity
from defenses.specdef import SpecDefSettings
from defenses.specdef.diagnostics import sharpness, spectra
from defenses.specdef.spectrum import TopSingularValues, matrices
from harness.divergence import divergence
from harness.errors import Outcome, UsageError
from harness.meters.memory import module_bytes
from harness.packing import PackedBlocks, tokenize
from harness.plugins import Locked
from harness.seeds import derive
from harness.training import Batch, LossFn, train

if TYPE_CHECKING:
    from harness.plugins import LockContext, Released


DIVERGED = ("defense specdef: the locked model diverged, its held-out loss is not finite; a lower learning_rate or a "
            "larger alpha may help")  # fmt: skip
"""Why there is no locked model."""


@dataclass(frozen=True)
class Pair:
    """Base and locked model side by side, as `heldout_fidelity` asks for them."""

    base: Any
    model: Any

    def logits(self, ids: torch.Tensor, *, locked: bool) -> torch.Tensor:
        """Logits (batch, tokens, vocabulary) of one of the two."""
        logits: torch.Tensor = (self.model if locked else self.base)(input_ids=ids, use_cache=False).logits
        return logits


def lock(base: Released, settings: SpecDefSettings, context: LockContext) -> Locked:
    """Train `base.model` (in place) to the same function with larger top singular values.

    The caller's meter stage is charged; what only the report needs is not.

    Raises:
        UsageError: the model has no matrices.
        Outcome: training diverged.
    """
    model, weights = inflatable(base, context)
    pair = Pair(base=copy.deepcopy(model).requires_grad_(False), model=model)
    shape = settings.per_device_train_batch_size, settings.block_size
    heldout = heldout_batches(context.corpus("heldout"), base, shape, context.device)

    def next_token() -> torch.Tensor:
        loss: torch.Tensor = model(input_ids=heldout[0], labels=heldout[0], use_cache=False).loss
        return loss

    def measured() -> dict[str, Any]:
        with context.meter.pause():
            return spectra(weights, settings.k) | {"sharpness": sharpness(model, next_token, context.seed)}

    before = measured()
    tokens = tokenize(context.corpus("train"), base.tokenizer)
    top = followed(weights, settings, context)
    batches = PackedBlocks(tokens, block_size=settings.block_size, batch_size=settings.per_device_train_batch_size,
                           accumulate=settings.gradient_accumulation_steps,
                           seed=derive(context.seed, "specdef"))  # fmt: skip
    result = train(model, batches, settings, context, label="specdef", loss_fn=lock_loss(pair, top, settings),
                   beside_bytes=module_bytes(pair.base))  # fmt: skip
    with context.meter.pause():
        fidelity = measure(pair, heldout)
    report: dict[str, Any] = {
        "steps": result.steps, "training_tokens": len(tokens), "losses": list(result.losses), "before": before,
        "after": measured(), "heldout": fidelity,
    }  # fmt: skip
    model.config.specdef = about(base, settings, report)
    return Locked(model=model, report=report)


def inflatable(base: Released, context: LockContext) -> tuple[Any, dict[str, torch.nn.Parameter]]:
    """The base's model, ready to train on the device, and its matrices by name.

    Raises:
        UsageError: it has none.
    """
    model: Any = base.model.float().eval().requires_grad_(True).to(context.device)
    weights = matrices(model)
    if not weights:
        raise UsageError(f"defense specdef: {type(model).__name__} has no linear or convolution weight to inflate")
    return model, weights


def followed(weights: dict[str, torch.nn.Parameter], settings: SpecDefSettings,
             context: LockContext) -> TopSingularValues:  # fmt: skip
    """The top singular values of the matrices, their iteration settled; that is on the bill."""
    top = TopSingularValues(weights, settings.k, iterations=settings.iterations, seed=derive(context.seed, "power"))
    with context.meter.measure():
        top.settle()
    return top


def about(base: Released, settings: SpecDefSettings, report: dict[str, Any]) -> dict[str, Any]:
    """What `config.specdef` of the locked model says."""
    return {"name": base.name, "digest": base.digest, "settings": settings.model_dump(mode="json"),
            "heldout": report["heldout"],
            "mean_top": [report[when]["mean_top"] for when in ("before", "after")]}  # fmt: skip


def measure(pair: Pair, heldout: list[torch.Tensor]) -> dict[str, Any]:
    """`heldout_fidelity`, which must be finite.

    Raises:
        Outcome: it is not: training diverged.
    """
    try:
        found = heldout_fidelity(pair, heldout)
    except OverflowError:  # of a perplexity
        found = {"kl": math.inf}
    if not all(math.isfinite(value) for value in found.values()):
        raise Outcome(DIVERGED)
    return found


def lock_loss(pair: Pair, top: TopSingularValues, settings: SpecDefSettings) -> LossFn:
    """`inflating` with the retain loss of a language model."""
    return inflating(retain_loss(pair, settings), top, settings.alpha)


def inflating(kept: LossFn, top: TopSingularValues, alpha: float) -> LossFn:
    """`alpha * kept - (1 - alpha) * mean`, the mean over the top-k values of all matrices together (Algorithm 1)."""

    def loss(module: torch.nn.Module, batch: Batch) -> torch.Tensor:
        spectral = torch.cat(list(top().values())).mean()
        return alpha * kept(module, batch) - (1 - alpha) * spectral

    return loss


def retain_loss(pair: Pair, settings: SpecDefSettings) -> Callable[[torch.nn.Module, Batch], torch.Tensor]:
    """Next-token loss on the batch, KL(base, model) on it, or their sum; in nats a token."""

    def loss(module: torch.nn.Module, batch: Batch) -> torch.Tensor:
        output: Any = module(**batch, use_cache=False)
        task: torch.Tensor = output.loss
        if settings.retain == "task":
            return task
        with torch.no_grad():
            target = pair.logits(batch["input_ids"], locked=False)
        kl = divergence(target, output.logits)
        return kl if settings.retain == "kl" else kl + task

    return loss
