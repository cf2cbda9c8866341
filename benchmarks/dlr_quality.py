"""Quality of DLR-Lock against the compute of the lock.

    python benchmarks/dlr_quality.py           run what is missing, then draw docs/figures/dlr_quality.png
    python benchmarks/dlr_quality.py --draw    only draw

One lock for each length (the cosine schedule ends with the lock, so a long one is not a short one stopped late).
"""

from __future__ import annotations

from typing import Any

from dlr_runs import DOCS, Rows, arguments, base_of, lock, quality, replace_between

from defenses.dlr import DLRSettings

INITS = ("greedy", "random")
LENGTHS = (0.1, 0.3, 1.0)
"""Steps of every stage, in units of the default."""
LONG = {"module_steps": 200, "polish_steps": 600, "self_generated": 0.8, "generated_tokens": 500_000}
LONGER = {
    "partition, long": {"init": "partition", **LONG},
    "greedy, long": LONG,
    "greedy, longest": LONG | {"polish_steps": 1800, "self_generated": 0.9, "generated_tokens": 1_500_000},
}
"""More polish, and so many of the base's own samples that no token is seen often: the corpus alone is overfitted."""


def locks() -> dict[str, DLRSettings]:
    """Settings of every lock by the key of its row."""
    default = DLRSettings()
    scaled = {f"{init} x {length:g}": {"init": init, **{key: round(getattr(default, key) * length)
                                                        for key in ("module_steps", "polish_steps")}}
              for length in LENGTHS for init in INITS}  # fmt: skip
    return {key: DLRSettings.model_validate(settings) for key, settings in (scaled | LONGER).items()}


def run(settings: DLRSettings, args: Any) -> dict[str, Any]:
    """One lock and what it keeps."""
    locked, bill, _ = lock(settings, args)
    told = ("init", "module_steps", "polish_steps", "self_generated", "generated_tokens")
    return {**{key: getattr(settings, key) for key in told}, "flops": bill.flops, "seconds": round(bill.seconds, 1),
            "tokens": bill.tokens, **quality(base_of(args), locked, args, pairs=True)}  # fmt: skip


def table(rows: dict[str, Any]) -> str:
    """The page's table."""
    lines = ["| init | steps: distil + polish | own samples | lock, TFLOPs | perplexity ratio | KL, nats | top-1 "
             "| pairs kept |", "|---|---:|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    lines += [f"| {r['init']} | {r['module_steps']} + {r['polish_steps']} | {r['self_generated']:.0%} "
              f"| {r['flops'] / 1e12:.2f} "
              f"| {r['perplexity_ratio']:.3f} | {r['kl']:.4f} | {r['top1_agreement']:.3f} "
              f"| {r['minimal_pairs_retention']:.3f} |" for r in rows.values()]  # fmt: skip
    return "\n".join(lines)


def draw(rows: dict[str, Any]) -> None:
    """Perplexity ratio and minimal-pair retention over the lock's FLOPs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    panels = (("perplexity_ratio", "perplexity, locked / base"), ("minimal_pairs_retention", "minimal pairs kept"))
    for axis, (key, label) in zip(axes, panels, strict=True):
        for init, style in zip((*INITS, "partition"), ("o-", "s--", "^:"), strict=True):
            points = sorted((r["flops"], r[key]) for r in rows.values() if r["init"] == init)
            axis.plot(*zip(*points, strict=True), style, label=f"init {init}")
        axis.axhline(1.0, color="0.6", linewidth=0.8)
        axis.set(xscale="log", xlabel="lock compute, FLOPs (counted)", ylabel=label)
    axes[0].legend(frameon=False)
    path = DOCS / "figures" / "dlr_quality.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Software": None})


def main() -> None:
    """Run, write, draw."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--draw", action="store_true", help="only draw")
    args = parser.parse_args()
    default = DLRSettings().model_dump(mode="json")
    about = {"model": args.model, "base_digest": base_of(args).digest, "corpus": args.corpus, "seed": args.seed,
             "settings": default}  # fmt: skip
    rows = Rows(DOCS / "data" / "dlr_quality.json", about)
    if not args.draw:
        for key, settings in locks().items():
            print(key, rows.once(key, lambda settings=settings: run(settings, args)), flush=True)
    draw(rows.rows)
    replace_between(DOCS / "locks" / "dlr.md", "quality", table(rows.rows))


if __name__ == "__main__":
    main()
