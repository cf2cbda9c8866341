"""What the papers' theory predicts and what counting finds: the numbers of docs/theory.md, one function a section.

`python benchmarks/theory_figures.py` runs all of them; nothing here is random beyond the seeds written below.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from harness.seeds import derive
from harness.theory import activations, bounds, masks, networks, quadratic
from harness.theory.hessian import hessian, largest
from harness.theory.iterations import adam_steps

SEEDS = 3
TOLERANCE, SIZE, OUTLIERS = 1e-6, 32, 2
KAPPAS = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)
STEPS = 10**6
FACTORS = (1.0, 3.0, 10.0, 30.0, 100.0)
ADAM_WEIGHTS = {"mlp": "layer4", "cnn": "layer2", "transformer": "O"}
RATES, ADAM_LIMIT, ADAM_REFERENCE = (1e-3, 1e-2, 1e-1), 3000, 1000
DEPTHS, WIDTH, HIDDEN, TOKENS = (8, 16, 32, 64, 128), 128, 384, 64
SHARES, GROUPS, BATCHES = (0.1, 0.5, 0.9), (1, 2, 4), 8


def network_list() -> list[networks.Network]:
    """Figure 2's three."""
    return [networks.mlp(), networks.cnn(), networks.transformer()]


def quadratic_steps() -> list[dict[str, Any]]:
    """Steps of every method on two families of spectra, by condition number."""
    rows = []
    for spectrum in ("spread", "outliers"):
        for kappa in KAPPAS:
            rng = np.random.default_rng(derive(0, "theory", "quadratic"))
            values = np.geomspace(1, kappa, SIZE)
            if spectrum == "outliers":
                values = np.append(np.geomspace(1, min(kappa, 10), SIZE - OUTLIERS), [kappa] * OUTLIERS)
            h, start = quadratic.hessian_of_features(values, rng), rng.standard_normal(SIZE)
            rows.append({"spectrum": spectrum, "kappa": kappa, **_steps(h, start), **{
                "gradient_descent_bound": quadratic.gradient_descent_bound(kappa, TOLERANCE),
                "accelerated_bound": quadratic.accelerated_bound(kappa, TOLERANCE),
                "first_order_bound": quadratic.first_order_bound(kappa, TOLERANCE)}})  # fmt: skip
    return rows


def _steps(h: quadratic.Array, start: quadratic.Array) -> dict[str, int | None]:
    aligned = np.diag(np.linalg.eigvalsh(h))
    runs: dict[str, Callable[[], Iterator[quadratic.Array]]] = {
        "gradient_descent": lambda: quadratic.gradient_descent(h, start),
        "accelerated": lambda: quadratic.accelerated(h, start),
        "conjugate_gradients": lambda: quadratic.conjugate_gradients(h, start),
        "jacobi": lambda: quadratic.gradient_descent(h, start, quadratic.jacobi(h)),
        "jacobi_aligned": lambda: quadratic.gradient_descent(aligned, start, quadratic.jacobi(aligned)),
        "deflated": lambda: quadratic.gradient_descent(h, start, quadratic.deflation(h, OUTLIERS)),
        "newton": lambda: quadratic.gradient_descent(h, start, quadratic.newton(h)),
    }
    return {name: quadratic.steps(run(), start, TOLERANCE, STEPS) for name, run in runs.items()}


def starts(network: networks.Network) -> list[tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]]:
    """Matrices, inputs and targets of each seed."""
    return [(network.init(derive(seed, "theory", network.name, "init")),
             *network.data(derive(seed, "theory", network.name, "data"))) for seed in range(SEEDS)]  # fmt: skip


def hessian_bounds() -> list[dict[str, Any]]:
    """Exact sigma_max of the whole Hessian and the bounds, by network, matrix and factor; a list entry a seed."""
    rows = []
    for network in network_list():
        seeds = starts(network)
        for weight in network.shapes:
            for top, factors in ((None, (1.0, 10.0, 100.0)), (1, (10.0, 100.0))):
                for factor in factors:
                    found = [_bounds(network, weight, factor, top, *start) for start in seeds]
                    rows.append({"network": network.name, "weight": weight, "top": top, "factor": factor}
                                | {key: [each[key] for each in found] for key in found[0]})  # fmt: skip
    return rows


def _bounds(network: networks.Network, weight: str, factor: float, top: int | None, params: dict[str, torch.Tensor],
            x: torch.Tensor, y: torch.Tensor) -> dict[str, float | None]:  # fmt: skip
    changed = params | {weight: networks.rescaled(params[weight], factor, top)}
    row: dict[str, float | None] = {"true": largest(hessian(network, changed, x, y))}
    found = bounds.best_bounds(network, changed, x, weight)
    for name in ("simple", "sum_form", "index_form", "examples"):
        row[name] = None if found is None else getattr(found, name)
    if (network.name, weight) == ("transformer", "V"):  # it stands on the input side of W_O's block
        site = next(site for site in network.sites if site.block == "V")
        gain = bounds.values(bounds.factors(site, changed, x)[0], networks.WIDTH)[:, -1].min()
        entered = networks.mixed(changed, x).T
        row["simple"] = bounds.input_side_bound(float(gain), changed[weight], entered, networks.OUTPUTS)
    return row


def adam() -> list[dict[str, Any]]:
    """Steps to 1.02 times the loss that the unchanged network reaches; a list entry a seed.

    `undo` is an attacker who first scales the matrix to the spectral norm of another Xavier draw of its shape; it knows
    neither the factor nor the original.
    """
    rows = []
    for network in network_list():
        seeds = starts(network)
        reached = _adam(network, [(*start, 0.0, 1e-3) for start in seeds], ADAM_REFERENCE)[1]
        targets = [1.02 * least for least in reached]
        weight = ADAM_WEIGHTS[network.name]
        fresh = network.init(derive(0, "theory", network.name, "attacker"))[weight]
        cells = [(factor, rate, undo) for factor in FACTORS
                 for rate, undo in [*((rate, False) for rate in RATES), (1e-3, True)]]  # fmt: skip
        runs = []
        for factor, rate, undo in cells:
            for (params, x, y), target in zip(seeds, targets, strict=True):
                changed = networks.rescaled(params[weight], factor)
                if undo:
                    changed = changed * (largest(fresh) / largest(changed))
                runs.append((params | {weight: changed}, x, y, target, rate))
        counts = _adam(network, runs, ADAM_LIMIT)[0]
        rows += [{"network": network.name, "weight": weight, "factor": factor, "rate": rate, "undo": undo,
                  "steps": counts[SEEDS * index : SEEDS * (index + 1)]}
                 for index, (factor, rate, undo) in enumerate(cells)]  # fmt: skip
    return rows


def _adam(network: networks.Network, runs: list[Any], limit: int) -> tuple[list[int | None], list[float]]:
    params, x, y, target, rate = zip(*runs, strict=True)
    stacked = {name: torch.stack([each[name] for each in params]) for name in network.shapes}
    targets, rates = (torch.tensor(each, dtype=torch.float64) for each in (target, rate))
    return adam_steps(network, stacked, torch.stack(x), torch.stack(y), target=targets, rate=rates, limit=limit)


def kept_bytes() -> list[dict[str, Any]]:
    """Numbers a token that DLR-Nets of the shipped model's shape keep: formulas, and the meter's count."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from defenses.dlr import DLRSettings
    from defenses.dlr.build import ranks
    from defenses.dlr.modeling_dlr import DLRNet
    from harness.models.families import find_mlps

    shape = {"hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_hidden_layers": 1, "num_attention_heads": 4}
    site = find_mlps(LlamaForCausalLM(LlamaConfig(vocab_size=8, **shape)))[0]
    base = _counted(site.module)
    rows: list[dict[str, Any]] = [{"depth": 0, "formula": activations.swiglu_kept(WIDTH, HIDDEN), **base}]
    for depth in DEPTHS:
        each = ranks(site, DLRSettings(depth=depth), False, False)
        segments = math.isqrt(depth)
        for norm in ("none", "rms"):
            net = DLRNet(WIDTH, each, norm=norm)
            plain = _counted(net)
            net.checkpoint, net.segments = True, segments
            row = {"depth": depth, "rank": sum(each) / depth, "norm": norm, "segments": segments,
                   "lean": activations.lean(WIDTH, each), "padded": activations.padded(WIDTH, each),
                   "formula": activations.dlr_kept(WIDTH, each, norm=norm == "rms"), **plain,
                   "checkpointed_formula": activations.checkpointed_kept(WIDTH, depth, segments),
                   "checkpointed_floor": activations.checkpointed_peak(WIDTH, each, segments, norm=norm == "rms"),
                   }  # fmt: skip
            rows.append(row | {f"checkpointed_{key}": value for key, value in _counted(net).items()})
    return rows


def _counted(module: torch.nn.Module) -> dict[str, float]:
    from harness.meters.micro import measure_micro

    scale, x = torch.nn.Parameter(torch.ones(WIDTH)), torch.zeros(TOKENS, WIDTH)
    params = [*module.parameters(), scale]
    cost = measure_micro(lambda: module(x * scale).sum(), torch.Tensor.backward, params)[1]
    return {"kept": cost.kept_for_backward_bytes / 4 / TOKENS, "peak": cost.peak_backward_bytes / 4 / TOKENS}


def mask_overlap() -> list[dict[str, Any]]:
    """Overlap of gradient masks of disjoint groups of batches, on `tiny` and on random weights of its shape."""
    from transformers import LlamaForCausalLM

    from harness.corpus import corpus
    from harness.models.load import load_model
    from harness.packing import PackedBlocks, tokenize

    released = load_model("tiny")
    blocks = PackedBlocks(tokenize(corpus("python_docs", "train", None), released.tokenizer), block_size=128,
                          batch_size=4, seed=derive(0, "theory", "masks"))  # fmt: skip
    torch.manual_seed(derive(0, "theory", "masks", "init"))
    rows = []
    for name, model in (("tiny", released.model), ("random", LlamaForCausalLM(released.model.config))):
        kinds = {key: p for key, p in model.named_parameters() if p.dim() > 1}
        inner = torch.cat([torch.full((p.numel(),), key in kinds and "embed" not in key)
                           for key, p in model.named_parameters()])  # fmt: skip
        scores = torch.stack([_gradient(model, blocks(batch, 0)) for batch in range(BATCHES)])
        for scope, chosen in (("all", scores), ("matrices", scores[:, inner])):
            for size in GROUPS:
                groups = masks.group_means(chosen, size)[:4]
                for share in SHARES:
                    found = masks.mean_iou([masks.top_mask(row, share) for row in groups])
                    rows.append({"model": name, "scope": scope, "batches": size, "share": share, "iou": found,
                                 "independent": masks.independent_iou(share), "parameters": chosen.shape[1],
                                 "zeros": float((groups == 0).double().mean())})  # fmt: skip
    return rows


def _gradient(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    model.zero_grad()
    model(**batch).loss.backward()
    return torch.cat([p.grad.abs().flatten() for p in model.parameters()])


SECTIONS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "quadratic": quadratic_steps, "bounds": hessian_bounds, "adam": adam, "kept": kept_bytes, "masks": mask_overlap,
}  # fmt: skip
"""Sections of docs/data/theory.json."""
