"""`undo_specdef_reparam`: undo SpecDef's reparameterisation, then fine-tune.

The lock stores a matrix W as C W~ (docs/locks/specdef_reparam.md). Five ways around it, all from the weights alone:
the pairs are found by what flows through them, and which factor is which, and how much is inflated, by singular values.
On a model without such pairs every method is full fine-tuning (`fp64`: in float64), so the reference is fair.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from attacks.full import UndoneSettings
from harness.kinds import WITH_TOKENS, Kind
from harness.plugins import Attack, AttackContext, Attacked, Knowledge, Released

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

PROBE_TOKENS = 16
"""Tokens on which pairs are looked for."""


class UndoSpecDefReparamSettings(UndoneSettings):
    """`full`'s settings for the fine-tuning, and how the lock is undone before."""

    method: Literal["merge", "freeze", "scaled_lr", "fp64", "chain"] = "merge"
    """`merge` multiplies pairs out; `freeze` keeps the compensation as it is; `scaled_lr` divides its learning rate by
    the inflation; `fp64` does that with float64 weights; `chain` is `freeze` with the inflated matrix in factors."""
    chain_factors: int = Field(3, ge=2, le=16)
    """Factors of `chain`, each with singular values of about the `chain_factors`-th root."""


class UndoSpecDefReparam(Attack):
    """Multiply SpecDef's pairs out (or freeze, scale, refactor them), then fine-tune everything."""

    kinds: ClassVar[tuple[Kind, ...]] = WITH_TOKENS
    knowledge = Knowledge.CODE
    Settings = UndoSpecDefReparamSettings
    settings: UndoSpecDefReparamSettings

    def attack(self, released: Released, context: AttackContext) -> Attacked:
        """See `harness.plugins.Attack`."""
        from attacks.common import finetune_scaled, finish, prepare, unfreeze

        if self.settings.method != "merge":  # bf16 products would break the pair, which stays
            context = dataclasses.replace(context, bf16=False)
        before = released.model.num_parameters()

        def undone(settings: UndoSpecDefReparamSettings) -> tuple[PreTrainedModel, dict[str, Any]]:
            model = prepare(released.model, context).eval()
            with context.meter.stage("undo"):
                return model, _undo(model, settings, context)

        model, report = context.undo(undone, self.settings)
        scales, frozen = report.pop("scales"), report.pop("frozen")
        targets = unfreeze(model, lambda name: name not in frozen)
        training = finetune_scaled(model, released.tokenizer, context, self.settings, scales)
        report["parameters"] = [before, model.num_parameters()]
        return Attacked(model=finish(model), training=training, targets=targets, report=report)


def _undo(model: PreTrainedModel, settings: UndoSpecDefReparamSettings, context: AttackContext) -> dict[str, Any]:
    """Change the pairs of `model` in place; the report, with `scales` by name of rate and gradient, and the names of
    what stays `frozen`."""
    from attacks.linear_pairs import merge

    method, chains = settings.method, chains_of(model, context)
    report: dict[str, Any] = {"method": method, "chains": chains, "scales": {}, "frozen": []}
    if method == "merge":
        with context.meter.measure():
            return {**report, "merged": merge(model, chains)}
    scales, report["inflation"] = rates(model, chains, context)
    report["frozen" if method in ("freeze", "chain") else "scales"] = scales
    if method == "chain":
        for chain in chains:
            strongest = next(name for name in chain if f"{name}.weight" not in scales)
            refactor(model, strongest, settings.chain_factors, context)
    if method == "fp64":
        model.double()
    return report


def chains_of(model: PreTrainedModel, context: AttackContext) -> list[list[str]]:
    """See `attacks.linear_pairs.find_chains`; on random tokens, charged."""
    from attacks.linear_pairs import find_chains

    ids = probe_ids(model, context.seed)
    with context.meter.measure():
        return find_chains(model, ids)


def probe_ids(model: PreTrainedModel, seed: int) -> torch.Tensor:
    """Random tokens, (1, `PROBE_TOKENS`), where the model is."""
    import torch

    from harness.seeds import derive

    generator, weight = torch.Generator().manual_seed(derive(seed, "probe")), model.get_input_embeddings().weight
    return torch.randint(weight.shape[0], (1, PROBE_TOKENS), generator=generator).to(weight.device)


def rates(
    model: PreTrainedModel, chains: list[list[str]], context: AttackContext
) -> tuple[dict[str, float], list[float]]:
    """Learning-rate factors of the weights that compensate, by name, and the inflation of each chain.

    The inflation is the product of the factors' largest singular values over that of their product: 1 for factors that
    work together, alpha where one blows up what another shrinks. A step of the others is amplified by the strongest.
    """
    from attacks.linear_pairs import matrix, product

    scales: dict[str, float] = {}
    found = []
    for chain in chains:
        with context.meter.measure():
            whole = product(model, chain)[0]
        norms = [norm(matrix(model.get_submodule(name)), context) for name in chain]
        inflation = 1.0
        for value in norms:
            inflation *= value
        inflation = max(1.0, inflation / norm(whole, context))
        weak = [name for name, value in zip(chain, norms, strict=True) if value < max(norms)]
        scales |= {f"{name}.weight": 1 / inflation for name in weak}
        found.append(inflation)
    return scales, found


def norm(weight: torch.Tensor, context: AttackContext) -> float:
    """The largest singular value of a matrix; charged as a whole decomposition."""
    import torch

    from defenses.specdef_reparam.lock import svd_flops
    from harness.bill import Bill

    context.meter.charge(Bill(forward_flops=svd_flops(tuple(weight.shape))))
    return float(torch.linalg.matrix_norm(weight, 2))


def refactor(model: PreTrainedModel, name: str, factors: int, context: AttackContext) -> None:
    """`U S V'` as a chain of linear layers `S^(1/k) V'`, `S^(1/k)` ..., `U S^(1/k)`, in place (papers: GLM's reading of
    Theorem 8 of arXiv 2602.18868); the last one has the bias."""
    import torch
    from torch import nn

    from attacks.linear_pairs import matrix
    from defenses.specdef_reparam.lock import svd_flops
    from harness.bill import Bill

    layer: Any = model.get_submodule(name)
    weight = matrix(layer)
    context.meter.charge(Bill(forward_flops=svd_flops(tuple(weight.shape))))
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    root = s ** (1 / factors)
    weights = [root[:, None] * vh, *[root.diag()] * (factors - 2), u * root]
    links = []
    for index, value in enumerate(weights):
        bias = layer.bias is not None and index == factors - 1
        link = nn.Linear(value.shape[1], value.shape[0], bias=bias, device=value.device, dtype=layer.weight.dtype)
        link.weight.data.copy_(value)
        if bias:
            link.bias.data.copy_(layer.bias)
        links.append(link)
    model.set_submodule(name, nn.Sequential(*links))
