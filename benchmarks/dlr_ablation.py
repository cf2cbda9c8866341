"""The ablation behind DLR-Lock's defaults: depth, norm and initialisation at equal lock compute.

    python benchmarks/dlr_ablation.py          fill in missing rows, then rewrite the table in docs/locks/dlr.md
    python benchmarks/dlr_ablation.py --table  only the table

A row: utility, bytes kept for backward (full fine-tuning, frozen MLPs, checkpointing), full fine-tuning with a
learning-rate sweep on `python_source`, and two undo attempts: re-distillation into a SwiGLU MLP and, for `partition`,
putting the slices side by side. Every variant has as many parameters as the MLPs, so equal steps are equal FLOPs.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import itertools
from typing import Any

from dlr_runs import DOCS, Rows, arguments, base_of, lock, quality, replace_between

from attacks.checkpointing import Checkpointing
from attacks.frozen_mlp import FrozenMLP
from attacks.full import FullFineTuning
from attacks.redistill import RedistillSettings
from attacks.undo_dlr import undo
from defenses.dlr import DLRSettings
from defenses.dlr.initial import merged_slices
from defenses.dlr.modeling_dlr import put
from harness.errors import Outcome
from harness.meters.meter import Meter
from harness.models.families import find_mlps
from harness.plugins import Attack, AttackContext, Released
from harness.seeds import derive
from harness.tasks.python_source import PythonSource, PythonSourceSettings
from harness.workshop import main_score

STEPS = {"module_steps": 60, "polish_steps": 60, "self_generated": 0.0, "patience": 100}
"""One lock compute for all rows."""
VARIANTS = [{"depth": depth, "norm": norm, "init": "random"}
            for depth, norm in itertools.product((8, 16, 32, 64), ("rms", "none"))]  # fmt: skip
VARIANTS += [{"depth": 32, "norm": "rms", "init": "greedy"}, {"depth": 8, "norm": "none", "init": "partition"},
             {"depth": 32, "norm": "rms", "init": "partition"}]  # fmt: skip
RATES = (3e-4, 1e-3, 3e-3, 1e-2)
ATTACK_STEPS = 60
UNDO = RedistillSettings(undo_steps=60, polish_steps=60, eval_points=0, learning_rate=3e-3)
"""As much training as the lock had, from the attacker's own side: fitting, then KL to the locked model."""
TASK = PythonSource(PythonSourceSettings(max_items=100))


def context(args: argparse.Namespace, meter: Meter) -> AttackContext:
    """An attacker without limits on `python_source`."""
    return AttackContext(seed=derive(args.seed, "attack"), device="cpu", folder=args.work, meter=meter, task=TASK)


def attacked(released: Released, attack: Attack, args: argparse.Namespace) -> tuple[Released, Any]:
    """A copy of `released` after the attack, and the bill."""
    meter, subject = Meter(), dataclasses.replace(released, model=copy.deepcopy(released.model))
    result = attack.attack(subject, context(args, meter))
    return dataclasses.replace(subject, model=result.model.eval()), meter.bills["attack"]


def sweep(released: Released, args: argparse.Namespace) -> dict[str, Any]:
    """Full fine-tuning at every rate; the best on the selection split is scored on the test split."""
    tried = []
    for rate in RATES:
        settings = FullFineTuning.Settings(learning_rate=rate, max_steps=ATTACK_STEPS, eval_points=0)
        found, bill = attacked(released, FullFineTuning(settings), args)
        tried.append((main_score(TASK, TASK.score(found, "selection")), rate, found, bill))
    _, rate, best, bill = max(tried, key=lambda trial: trial[0])
    return {"untouched": main_score(TASK, TASK.score(released, "test")),
            "attacked": main_score(TASK, TASK.score(best, "test")), "learning_rate": rate,
            "selection": {f"{r:g}": score for score, r, _, _ in tried},
            "kept_bytes": bill.kept_for_backward_bytes, "peak_bytes": bill.peak_backward_bytes}  # fmt: skip


def memory(released: Released, args: argparse.Namespace) -> dict[str, int]:
    """Bytes kept for backward with frozen MLPs, and the peak of backward with checkpointing, from one step each."""
    one = {"max_steps": 1, "eval_points": 0}
    frozen = attacked(released, FrozenMLP(FrozenMLP.Settings.model_validate(one)), args)[1]
    recomputed = attacked(released, Checkpointing(Checkpointing.Settings.model_validate(one)), args)[1]
    return {"frozen_mlp_kept_bytes": frozen.kept_for_backward_bytes,
            "checkpointing_peak_bytes": recomputed.peak_backward_bytes}  # fmt: skip


def undone(base: Released, locked: Released, args: argparse.Namespace) -> dict[str, Any]:
    """Quality, against the base, of what the two ways back give."""
    found: dict[str, Any] = {}
    if locked.model.config.dlr["base"]["settings"]["init"] == "partition":
        merged = dataclasses.replace(locked, model=copy.deepcopy(locked.model), digest="merged")
        for site, original in zip(find_mlps(merged.model), find_mlps(base_of(args).model), strict=True):
            merged_slices(site.module, original.module)
            put(merged.model, site.path, original.module)
        found["merged"] = quality(base, merged, args, pairs=False)
    fitted, meter = dataclasses.replace(locked, model=copy.deepcopy(locked.model), digest="redistilled"), Meter()
    undo(fitted.model, fitted.tokenizer, UNDO, context(args, meter))
    found["redistilled"] = quality(base, fitted, args, pairs=False) | {"flops": meter.total.flops}
    return found


def row(variant: dict[str, Any], base: Released, args: argparse.Namespace) -> dict[str, Any]:
    """Everything about one variant; a lock that fails (a stream that blows up) is a row that says so."""
    try:
        locked, bill, report = lock(DLRSettings(**variant, **STEPS), args)
    except Outcome as error:
        return {"settings": variant, "failed": str(error)}
    return {"settings": variant, "lock": {"flops": bill.flops, "seconds": round(bill.seconds, 1),
            "layer_errors": list(report["layer_errors"].values())}, "quality": quality(base, locked, args, pairs=True),
            "attack": sweep(locked, args), "memory": memory(locked, args),
            "undo": undone(base, locked, args)}  # fmt: skip


def name(variant: dict[str, Any]) -> str:
    """Key of a row."""
    return f"{variant['init']}, norm {variant['norm']}, depth {variant['depth']}"


def table(rows: dict[str, Any]) -> str:
    """The page's table."""
    base = rows["base"]
    gain = base["attack"]["attacked"] - base["attack"]["untouched"]
    lines = ["| nets | perplexity ratio | top-1 | pairs kept | kept: full | kept: frozen MLPs | peak: checkpointing "
             "| recovery of full fine-tuning | ratio after re-distillation | ratio after putting slices together |",
             "|---|" + "---:|" * 9]  # fmt: skip
    for key in filter(rows.__contains__, map(name, VARIANTS)):
        entry = rows[key]
        if "failed" in entry:
            lines.append(f"| {key} | failed: {entry['failed']} |" + " |" * 8)
            continue
        q, a, m, u = entry["quality"], entry["attack"], entry["memory"], entry["undo"]
        recovery = (a["attacked"] - base["attack"]["untouched"]) / gain
        merged = f"{u['merged']['perplexity_ratio']:.3f}" if "merged" in u else "-"
        lines.append(
            f"| {key} | {q['perplexity_ratio']:.3f} | {q['top1_agreement']:.3f} | {q['minimal_pairs_retention']:.2f} "
            f"| {a['kept_bytes'] / base['attack']['kept_bytes']:.2f} x "
            f"| {m['frozen_mlp_kept_bytes'] / base['memory']['frozen_mlp_kept_bytes']:.2f} x "
            f"| {m['checkpointing_peak_bytes'] / base['attack']['peak_bytes']:.2f} x "
            f"| {recovery:.2f} (at {a['learning_rate']:g}) | {u['redistilled']['perplexity_ratio']:.3f} | {merged} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Fill in, then write the table."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--part", default="0/1", help="1/2: the second of two processes that share the rows")
    parser.add_argument("--table", action="store_true", help="only rewrite the table")
    args = parser.parse_args()
    base = base_of(args)
    about = {"model": args.model, "base_digest": base.digest, "corpus": args.corpus, "seed": args.seed, "lock": STEPS,
             "attack_steps": ATTACK_STEPS, "rates": list(RATES), "undo": UNDO.model_dump(mode="json")}  # fmt: skip
    rows = Rows(DOCS / "data" / "dlr_ablation.json", about)
    if not args.table:
        if args.part.startswith("0/"):
            rows.once("base", lambda: {"attack": sweep(base, args), "memory": memory(base, args)})
        part, parts = map(int, args.part.split("/"))
        for variant in VARIANTS[part::parts]:
            rows.once(name(variant), lambda variant=variant: row(variant, base, args))
            print(name(variant), flush=True)
    if "base" in rows.rows:
        replace_between(DOCS / "locks" / "dlr.md", "ablation", table(rows.rows))


if __name__ == "__main__":
    main()
