"""Quality of DLR-Lock against the compute of the lock.

    python benchmarks/dlr_quality.py           run what is missing, then draw docs/figures/dlr_quality.png
    python benchmarks/dlr_quality.py --draw    only draw

One lock for each length (the cosine schedule ends with the lock, so a long one is not a short one stopped late).
"""

from __future__ import annotations

from typing import Any

from dlr_runs import DOCS, Rows, arguments, base_of, lock, quality, replace_between

from defenses.dlr import DLRSettings

LENGTHS = (0.1, 0.3, 1.0, 4.0)
"""Steps of every stage, in units of the default."""
INITS = ("greedy", "random")


def run(init: str, length: float, args: Any) -> dict[str, Any]:
    """One lock and what it keeps."""
    default = DLRSettings()
    steps = {key: round(getattr(default, key) * length) for key in ("module_steps", "polish_steps")}
    locked, bill, _ = lock(DLRSettings(init=init, **steps), args)
    return {"init": init, **steps, "flops": bill.flops, "seconds": round(bill.seconds, 1), "tokens": bill.tokens,
            **quality(base_of(args), locked, args, pairs=True)}  # fmt: skip


def table(rows: dict[str, Any]) -> str:
    """The page's table."""
    lines = ["| init | steps: distil + polish | lock, TFLOPs | perplexity ratio | KL, nats | top-1 | pairs kept |",
             "|---|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    lines += [f"| {r['init']} | {r['module_steps']} + {r['polish_steps']} | {r['flops'] / 1e12:.2f} "
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
        for init, style in zip(INITS, ("o-", "s--"), strict=True):
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
        for length in LENGTHS:
            for init in INITS if length <= 1 else INITS[:1]:
                rows.once(f"{init} x {length:g}", lambda init=init, length=length: run(init, length, args))
                print(init, length, rows.rows[f"{init} x {length:g}"], flush=True)
    draw(rows.rows)
    replace_between(DOCS / "locks" / "dlr.md", "quality", table(rows.rows))


if __name__ == "__main__":
    main()
