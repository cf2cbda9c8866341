"""Reading PMP's private mask off the released weights; what `undo_pmp` does first. None of it sees the secret."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from defenses.pmp.discover import Scores
from defenses.pmp.mask import Mask, masked_parameters, top
from defenses.pmp.pretrain import init_seed, initial_model
from harness.finetune import task_batches
from harness.seeds import derive
from harness.training import causal_lm_loss

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from harness.plugins import AttackContext
    from harness.train_settings import TrainSettings

Found = tuple[Mask, dict[str, Any]]
ROUNDS = 30
"""Iterations of expectation-maximisation, which has settled long before."""
SAMPLE = 500_000
"""Entries of all tensors together on which the complement's scale is fitted."""
EVIDENCE = 5.0
"""Nats of likelihood by which a tensor must be better explained with a ticket than without."""
SHRUNK = 0.5
"""Below this many times the scale of initial weights, the narrow component is a projected complement."""


def complement_scale(model: PreTrainedModel) -> float:
    """The width of the narrower of two centred normals that fit all matrices, in units of the initial weights'."""
    scales = initial_scales(model)
    named = _matrices(model, scales)
    pooled = torch.cat([(named[name].detach().float().cpu() / scales[name]).reshape(-1) for name in named])
    squares = pooled[:: max(1, len(pooled) // SAMPLE)].square().double()
    share, narrow, wide = 0.5, float(squares.median()) / 4, 4 * float(squares.mean())
    for _ in range(10 * ROUNDS):
        odds = math.log(share / (1 - share)) + 0.5 * (math.log(narrow / wide) + squares * (1 / narrow - 1 / wide))
        ticket = odds.sigmoid()
        share = min(max(float(ticket.mean()), 1e-3), 1 - 1e-3)
        narrow = max(float(((1 - ticket) * squares).sum() / (1 - ticket).sum()), 1e-20)
        wide = max(float((ticket * squares).sum() / ticket.sum()), narrow)
    return math.sqrt(narrow)


def by_width(model: PreTrainedModel, scale: float, *, everything: bool, rho: float | None = None) -> Found:
    """Entries that are more likely trained than drawn from a centred normal of `scale` times the initial width.

    Per tensor, a mixture of that normal and a wider one; the prior of an entry is logistic in its row and its column,
    because the gradients that chose the ticket are sums of outer products. Where the ticket's share `rho` is known, the
    likeliest so many entries of all tensors together are taken.
    """
    scales = initial_scales(model)
    named = _matrices(model, scales)
    covered = named if everything else masked_parameters(model, everything=False)
    chosen = {name: parameter for name, parameter in covered.items() if name in named}
    likely = {name: _posterior(p.detach().float().cpu(), scale * scales[name]) for name, p in chosen.items()}
    mask = {name: part > 0.5 for name, part in likely.items()} if rho is None else top(likely, rho)
    return mask, {"scale": scale}


def _posterior(weight: torch.Tensor, narrow: float) -> torch.Tensor:
    """Probability that each entry of a matrix is of the wide component."""
    squares = (weight / narrow).square()
    share, wide = _widths(squares)
    evidence = 0.5 * squares * (1 - 1 / wide) - 0.5 * math.log(wide)
    level = math.log(share / (1 - share))
    rows, columns = torch.zeros(len(weight), 1), torch.zeros(1, weight.shape[1])
    for _ in range(ROUNDS):
        ticket = (level + rows + columns + evidence).sigmoid()
        for effect, along in ((rows, 1), (columns, 0)):  # a Newton step each, pulled towards 0
            prior = (level + rows + columns).sigmoid()
            slope = (ticket - prior).sum(along, keepdim=True) - effect
            effect += slope / ((prior * (1 - prior)).sum(along, keepdim=True) + 1)
    return ticket


def _widths(squares: torch.Tensor) -> tuple[float, float]:
    """Most likely (share, variance) of the wide component beside a narrow one of variance 1, from squared entries.

    A grid over the variance, because the likelihood is flat where the two overlap and iterations from one start stall.
    Without clear evidence for a wide component there is none: a tensor that never trained must not look trained whole.
    """
    edges = torch.cat([torch.linspace(0, 6, 301), torch.tensor([8.0, 12.0, 20.0, 40.0, torch.inf])]).square()
    counts = torch.histogram(squares.reshape(-1), edges).hist.double()
    sums = torch.zeros(len(counts), dtype=torch.float64)
    sums.index_add_(0, torch.bucketize(squares.reshape(-1), edges[1:-1], right=True), squares.reshape(-1).double())
    means = sums / counts.clamp(min=1)
    largest = math.log10(max(float(squares.max()), 10.0))
    wide = torch.logspace(math.log10(1.05), largest, 100, dtype=torch.float64).unsqueeze(1)
    ratio = 0.5 * means * (1 - 1 / wide) - 0.5 * wide.log()  # log of wide over narrow, (grid, bins)
    share = torch.full_like(wide, 0.5)
    for _ in range(10 * ROUNDS):
        ticket = (share.logit() + ratio).sigmoid()
        share = ((counts * ticket).sum(1, keepdim=True) / counts.sum()).clamp(1e-4, 1 - 1e-4)
    likelihood = (counts * torch.logaddexp(share.log() + ratio, (1 - share).log())).sum(1)
    best = int(likelihood.argmax())
    if likelihood[best] < EVIDENCE:
        return 1e-4, 10.0**largest
    return float(share[best]), float(wide[best])


def by_initial_weights(model: PreTrainedModel, guesses: Sequence[int]) -> Found | None:
    """Entries that differ from the initial weights of one of the guessed root seeds; None if no guess is right.

    Assumes the owner's framework and versions, weights drawn on the CPU by the lock's own code, and a seed among
    `guesses`. A guess is right when far more entries agree than would by chance, at the precision of the release.
    """
    named = _matrices(model, initial_scales(model))
    for guess in guesses:
        fresh = dict(initial_model(model, init_seed(derive(guess, "lock"))).named_parameters())
        equal, chance, total, mask = 0, 0, 0, {}
        for name, parameter in named.items():
            weight = parameter.detach().float().cpu()
            drawn = _rounded_like(fresh[name].detach(), weight)
            same = weight == drawn
            mask[name] = ~same
            equal, total = equal + int(same.sum()), total + same.numel()
            chance += int((weight == drawn.roll(1, dims=0)).sum())
        if equal > 2 * chance + 0.01 * total:
            return mask, {"seed": guess, "equal": equal / total, "chance": chance / total}
    return None


def by_gradient(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rho: float, batches: int,
                settings: TrainSettings, context: AttackContext) -> Found:  # fmt: skip
    """The attacker's own ticket: the `rho` of entries with the largest mean |gradient| on the fine-tuning data."""
    packed = task_batches(tokenizer, context, settings)
    parameters = masked_parameters(model, everything=False)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    scores = Scores(parameters, average=True)
    try:
        for step in range(batches):
            batch = {key: value.to(context.device) for key, value in packed(step, 0).items()}
            with context.meter.measure(tokens=batch["input_ids"].numel(), key=("gradient", id(model))):
                torch.autograd.backward(causal_lm_loss(model, batch))
            model.zero_grad(set_to_none=True)
    finally:
        scores.close()
        model.requires_grad_(False)
    return top(scores.values, rho), {"batches": batches}


def initial_scales(model: PreTrainedModel) -> dict[str, float]:
    """Standard deviation of every tensor as its code initialises it; no seed is needed for that."""
    with torch.no_grad():
        fresh = initial_model(model, 0).named_parameters()
        return {name: float(parameter.std()) if parameter.numel() > 1 else 0.0 for name, parameter in fresh}


def _matrices(model: PreTrainedModel, scales: dict[str, float]) -> dict[str, torch.nn.Parameter]:
    """Matrices whose initial values are random, embeddings included."""
    return {name: p for name, p in model.named_parameters() if p.ndim == 2 and scales[name] > 0}


def _rounded_like(drawn: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """`drawn` at the coarsest precision that `weight` still fits."""
    for dtype in (torch.bfloat16, torch.float16):
        if torch.equal(weight.to(dtype).float(), weight):
            return drawn.to(dtype).float()
    return drawn
