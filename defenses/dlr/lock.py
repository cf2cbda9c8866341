"""The lock from end to end: describe, initialise, distil, cascade, polish, convert."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from defenses.dlr import DLRSettings
from defenses.dlr.build import Pair, Swap, describe
from defenses.dlr.data import heldout_batches, training_tokens
from defenses.dlr.distill import cascade_loss, heldout_errors, module_loss, stage
from defenses.dlr.initial import greedy_init, partition_init, random_init, set_gain
from defenses.dlr.modeling_dlr import DLRNet, convert
from defenses.dlr.polish import heldout_fidelity, polish_loss
from harness.plugins import Locked
from harness.seeds import derive

if TYPE_CHECKING:
    from harness.plugins import LockContext, Released

CALIBRATION_TOKENS = 8192
"""Tokens on which the first weights are fitted."""


def lock(base: Released, settings: DLRSettings, context: LockContext) -> Locked:
    """Distil every MLP of `base.model` into a DLR-Net; the model is changed in place and becomes a `DLR<Base>`.

    The caller's meter stage is charged. Training is in float32 (bf16 autocast where the context says so).
    """
    model: Any = base.model.float().eval().requires_grad_(False)
    dlr = describe(model, settings)
    swap = Swap(model, dlr)
    for net in swap.nets:
        net.to(context.device).requires_grad_(True)
    shape = settings.batch_size, settings.block_size
    heldout = heldout_batches(context.corpus("heldout"), base, shape, context.device)
    tokens = training_tokens(base, settings, context)
    initialise(swap, torch.as_tensor(tokens[:CALIBRATION_TOKENS]).long().to(context.device), settings, context.seed)
    report: dict[str, Any] = {
        "replaced_parameters": sum(site.parameters for site in swap.sites),
        "net_parameters": sum(parameter.numel() for net in swap.nets for parameter in net.parameters()),
        "training_tokens": len(tokens), "start": heldout_errors(swap, heldout),
        "stages": run_stages(swap, tokens, heldout, context, settings),
        "layer_errors": dict(zip(dlr["ranks"], heldout_errors(swap, heldout), strict=True)),
        "heldout": heldout_fidelity(swap, heldout),
    }  # fmt: skip
    swap.locked()
    model.requires_grad_(True)
    about = {"name": base.name, "digest": base.digest, "settings": settings.model_dump(mode="json"),
             "heldout": report["heldout"]}  # fmt: skip
    return Locked(model=convert(model, {**dlr, "base": about}), report=report)


def initialise(swap: Swap, tokens: torch.Tensor, settings: DLRSettings, seed: int) -> None:
    """First weights of every net, from the base's MLPs on `tokens` (a vector of ids)."""
    size = min(settings.block_size, len(tokens))
    blocks = tokens[: len(tokens) // size * size].view(-1, size)
    calibration: list[list[Pair]] = [swap.capture(ids)[0] for ids in torch.split(blocks, settings.batch_size)]
    for index, (site, net) in enumerate(zip(swap.sites, swap.nets, strict=True)):
        inputs, outputs = (torch.cat([pairs[index][side].flatten(0, -2) for pairs in calibration]) for side in (0, 1))
        generator = torch.Generator().manual_seed(derive(seed, "init", index))
        _first_weights(net, site.module, settings.init, generator, inputs, outputs)


def _first_weights(net: DLRNet, mlp: torch.nn.Module, init: str, generator: torch.Generator, inputs: torch.Tensor,
                   outputs: torch.Tensor) -> None:  # fmt: skip
    scale, device = float(inputs.square().mean().sqrt()), inputs.device
    set_gain(net, inputs, outputs)
    if init == "partition":
        partition_init(net, mlp, scale)
        return
    random_init(net.cpu(), generator, scale)  # drawn on the CPU, so that every device starts alike
    net.to(device)
    if init == "greedy":
        greedy_init(net, inputs, outputs)


def run_stages(swap: Swap, tokens: Any, heldout: list[torch.Tensor], context: LockContext,
               settings: DLRSettings) -> dict[str, Any]:  # fmt: skip
    """Module-wise, cascade, polish; each only if it has steps."""

    def layer_error() -> float:
        errors = heldout_errors(swap, heldout)
        return sum(errors) / len(errors)

    def kl() -> float:
        return float(heldout_fidelity(swap, heldout)["kl"])

    common = (swap, tokens, context, settings)
    return {
        "module": stage("distil", *common, steps=settings.module_steps, learning_rate=settings.module_learning_rate,
                        loss=module_loss(swap), error=layer_error),
        "cascade": stage("cascade", *common, steps=settings.cascade_steps, learning_rate=settings.module_learning_rate,
                         loss=cascade_loss(swap), error=kl),
        "polish": stage("polish", *common, steps=settings.polish_steps, learning_rate=settings.polish_learning_rate,
                        loss=polish_loss(swap), error=kl),
    }  # fmt: skip
