"""The lock from end to end: choose layers, split their matrices, check the release, convert."""

from __future__ import annotations

import copy
import dataclasses
import random
from typing import Any

import torch

from defenses.specdef_reparam import SpecDefReparamSettings
from defenses.specdef_reparam.modeling_specdef_reparam import PART, matrix, pair
from harness.bill import Bill
from harness.errors import Outcome, UsageError
from harness.models.derived import convert, put
from harness.packing import PackedBlocks, tokenize
from harness.plugins import LockContext, Locked, Released
from harness.seeds import derive
from harness.targets import ALL_LINEAR, linear_targets
from harness.utility.classifier import own_fidelity
from harness.utility.fidelity import BLOCK, fidelity


@torch.no_grad()
def lock(base: Released, settings: SpecDefReparamSettings, context: LockContext) -> Locked:
    """Inflate and compensate; the model is changed in place, is in the release's dtype and becomes a `SpecDef<Base>`.

    Raises:
        UsageError: see `choose`.
        Outcome: see `checked`.
    """
    model: Any = base.model.eval()
    layers = choose(model, settings, context.seed)
    # Every untouched parameter is shared, so that the reference costs no second model.
    reference = copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})
    report: dict[str, Any] = {"layers": {}}
    before = model.num_parameters()
    for name in layers:
        old, new = model.get_submodule(name), pair(model.get_submodule(name))
        weight = matrix(old)
        context.meter.charge(Bill(forward_flops=svd_flops(weight.shape)))
        with context.meter.measure():
            inflated, compensation = split(weight, settings.alpha, settings.k)
        new.inflated.weight.copy_(inflated)
        new.compensation.weight.copy_(compensation)
        if old.bias is not None:
            new.compensation.bias.copy_(old.bias)
        put(model, name, new.eval())
        report["layers"][name] = {"shape": list(weight.shape), "k": min(settings.k, *weight.shape),
                                  "largest": float(inflated.abs().max())}  # fmt: skip
    report |= {"parameters": [before, model.num_parameters()],
               "heldout": checked(base, reference, model, settings, context)}  # fmt: skip
    about = {"name": base.name, "digest": base.digest, "settings": settings.model_dump(mode="json"),
             "heldout": report["heldout"]}  # fmt: skip
    return Locked(model=convert(PART, model, {"layers": layers, "base": about}), report=report, dtype=settings.dtype)


def choose(model: Any, settings: SpecDefReparamSettings, seed: int) -> list[str]:
    """Paths of the layers to inflate, in model order; the output head and embeddings are never among them.

    Raises:
        UsageError: names that are not there, or `count` is more than there are.
    """
    if settings.layers not in ("random", "all"):
        return linear_targets(model, settings.layers)
    names = linear_targets(model, ALL_LINEAR)
    if settings.layers == "all":
        return names
    if settings.count > len(names):
        raise UsageError(f"defense.count={settings.count}: the model has {len(names)} linear layers; "
                         "layers=all takes every one")  # fmt: skip
    chosen = set(random.Random(derive(seed, "layers")).sample(names, settings.count))
    return [name for name in names if name in chosen]


def split(weight: torch.Tensor, alpha: float, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`W = U S V'` as `C W~`, in float64: `W~ = U S~ V'` with the k largest of S times alpha, `C = U (S / S~) U'`.

    U is completed to an orthogonal basis, so that C is the identity outside of the k directions: the "inserted identity
    layer" of the paper, for matrices that are taller than wide too.

    Returns:
        `W~` (out, in) and `C` (out, out).
    """
    u, s, vh = torch.linalg.svd(weight.double(), full_matrices=False)
    u, s, vh = u[:, :k], s[:k], vh[:k]
    inflated = weight.double() + (u * (s * (alpha - 1))) @ vh
    return inflated, torch.eye(len(u), dtype=u.dtype, device=u.device) - (u * (1 - 1 / alpha)) @ u.T


def svd_flops(shape: tuple[int, ...]) -> float:
    """Of a whole singular value decomposition, m x n with m >= n (Golub & Van Loan, Matrix Computations, 8.6)."""
    m, n = max(shape), min(shape)
    return 14 * m * n**2 + 8 * n**3


def checked(base: Released, reference: Any, model: Any, settings: SpecDefReparamSettings,
            context: LockContext) -> dict[str, Any]:  # fmt: skip
    """Fidelity of the unmerged pairs to the base on held-out text, both in the release's dtype.

    Both models are left in that dtype.

    Raises:
        Outcome: `max_kl` is exceeded: the release would not be the base's function.
    """
    for side in (reference, model):  # not side.to(dtype): rotary tables stay float32
        for tensor in side.state_dict(keep_vars=True).values():
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(getattr(torch, settings.dtype))
    one, other = (dataclasses.replace(base, model=side, digest=name)
                  for name, side in (("base", reference), ("locked", model)))  # fmt: skip
    if context.own is not None:
        with context.meter.measure():
            found = own_fidelity(one, other, context.own.examples("selection"), context.own)
    else:
        packed = PackedBlocks(tokenize(context.corpus("heldout"), base.tokenizer), block_size=BLOCK, batch_size=1,
                              seed=0)  # fmt: skip
        blocks = packed.blocks[: max(1, settings.heldout_tokens // BLOCK)]
        with context.meter.measure(tokens=blocks.numel()):
            found = fidelity(one, other, blocks)
    if not found["kl"] <= settings.max_kl:  # NaN where the inflated matrix overflows
        raise Outcome(f"specdef_reparam with alpha={settings.alpha:g} does not keep the function in {settings.dtype}: "
                      f"KL(base, locked) is {found['kl']:.3g} nats a token, defense.max_kl is {settings.max_kl:g}. "
                      "C (W~ x) loses alpha times the rounding of the dtype: lower defense.alpha"
                      + ", or set defense.dtype=float32" * (settings.dtype != "float32"))  # fmt: skip
    return found
