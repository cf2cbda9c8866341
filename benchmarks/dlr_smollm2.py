"""DLR-Lock of smollm2-135m on WikiText-2, as long as 30 minutes of two CPU cores last.

    python benchmarks/dlr_smollm2.py --data-dir DATA_PACK          lock, measure, write the table of docs/locks/dlr.md
    python benchmarks/dlr_smollm2.py --table                       only the table

The steps are fixed, not the time: the row says how long they took on the machine that made it.
"""

from __future__ import annotations

from typing import Any

from dlr_runs import DOCS, Rows, arguments, base_of, lock, quality, replace_between

from defenses.dlr import DLRSettings

LOCK = DLRSettings(module_steps=80, polish_steps=90, self_generated=0.0, check_every=10)
"""Sampling text of its own costs a model of this size more time than it brings here."""


def table(rows: dict[str, Any]) -> str:
    """The page's table."""
    lines = ["| steps: distil + polish | tokens | lock, TFLOPs | minutes | perplexity, base | ratio | KL, nats | top-1 "
             "| pairs kept |", "|---|---:|---:|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    lines += [f"| {r['module_steps']} + {r['polish_steps']} | {r['tokens']} | {r['flops'] / 1e12:.0f} "
              f"| {r['seconds'] / 60:.0f} | {r['perplexity_base']:.2f} | {r['perplexity_ratio']:.2f} | {r['kl']:.3f} "
              f"| {r['top1_agreement']:.3f} | {r['minimal_pairs_retention']:.2f} |" for r in rows.values()]  # fmt: skip
    return "\n".join(lines)


def run(args: Any) -> dict[str, Any]:
    """One lock and what it keeps."""
    locked, bill, report = lock(LOCK, args)
    steps = {f"{name}_steps": report["stages"][name]["steps"] for name in ("module", "polish")}
    return {**steps, "flops": bill.flops, "seconds": round(bill.seconds, 1), "tokens": bill.tokens,
            "stages": report["stages"], **quality(base_of(args), locked, args, pairs=True)}  # fmt: skip


def main() -> None:
    """Run, write."""
    parser = arguments(__doc__.splitlines()[0])
    parser.set_defaults(model="smollm2-135m", corpus="wikitext2")
    parser.add_argument("--table", action="store_true", help="only write the table")
    args = parser.parse_args()
    about = {"model": args.model, "base_digest": base_of(args).digest, "corpus": args.corpus, "seed": args.seed,
             "settings": LOCK.model_dump(mode="json")}  # fmt: skip
    rows = Rows(DOCS / "data" / "dlr_smollm2.json", about)
    if not args.table:
        print(rows.once(args.model, lambda: run(args)), flush=True)
    replace_between(DOCS / "locks" / "dlr.md", "smollm2", table(rows.rows))


if __name__ == "__main__":
    main()
