"""Measures what docs/theory.md shows, writes docs/data/theory.json and draws docs/figures/theory-*.svg.

    python benchmarks/theory_figures.py [--draw]

`--draw` only draws, from the numbers on disk. The tables follow with `python benchmarks/documents.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from theory_measure import ADAM_WEIGHTS, SECTIONS
from theory_tables import DATA, geometric, load

FIGURES = DATA.parents[1] / "figures"
BLUE, RED, GREEN, GOLD, PURPLE, GREY = "#1b6ca8", "#d1495b", "#2e8b57", "#b8860b", "#6a4c93", "#888888"


def draw_quadratic(plt: Any) -> Any:
    """Figure 1: steps against the condition number, for a spread spectrum and for two outliers."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    titles = {"spread": "eigenvalues spread from 1 to kappa", "outliers": "two at kappa, the others below 10"}
    curves = (("gradient_descent", "gradient descent", RED), ("accelerated", "accelerated", BLUE),
              ("conjugate_gradients", "conjugate gradients", GREEN), ("jacobi", "diagonal scaling, random axes", GOLD),
              ("deflated", "top two deflated", PURPLE), ("newton", "Newton", GREY))  # fmt: skip
    for axes, (spectrum, title) in zip(panels, titles.items(), strict=True):
        rows = [row for row in load("quadratic") if row["spectrum"] == spectrum]
        kappas = [row["kappa"] for row in rows]
        for key, name, colour in curves:
            axes.loglog(kappas, [row[key] for row in rows], "o-", markersize=3, color=colour, label=name)
        for key, colour in (("gradient_descent_bound", RED), ("accelerated_bound", BLUE)):
            axes.loglog(kappas, [row[key] for row in rows], ":", color=colour, label=None)
        axes.set(title=title, xlabel="condition number kappa")
    panels[0].set_ylabel("steps to 1e-6 (dotted: bound)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def draw_bounds(plt: Any) -> Any:
    """Figure 2: Adam's steps, and sigma_max of the Hessian with its bounds, against the factor on one matrix."""
    figure, panels = plt.subplots(2, 3, figsize=(9.5, 5.6), sharex=True, layout="constrained")
    for column, (network, weight) in enumerate(ADAM_WEIGHTS.items()):
        top, bottom = panels[:, column]
        runs = [row for row in load("adam") if (row["network"], row["weight"]) == (network, weight)]
        cells = (((0.001, False), RED, "lr 0.001"), ((0.01, False), GOLD, "lr 0.01"), ((0.1, False), GREEN, "lr 0.1"),
                 ((0.001, True), GREY, "scaled back, lr 0.001"))  # fmt: skip
        for cell, colour, name in cells:
            points = [(row["factor"], steps) for row in runs if (row["rate"], row["undo"]) == cell
                      for steps in row["steps"] if steps is not None]  # fmt: skip
            top.loglog(*zip(*points, strict=True) if points else ([], []), ".", color=colour, label=name)
        top.set(title=f"{network}, {weight}")
        rows = [row for row in load("bounds") if (row["network"], row["weight"], row["top"]) == (network, weight, None)]
        factors = [row["factor"] for row in rows]
        bottom.loglog(factors, [geometric(row["true"]) for row in rows], "k-", label="true, whole Hessian")
        for key, colour, name in (("index_form", BLUE, "index form"), ("sum_form", GOLD, "sum form (Remark A.3)"),
                                  ("simple", RED, "simple (Theorems 2.1, 2.2)")):  # fmt: skip
            points = [(row["factor"], bound) for row in rows for bound in row[key] if bound]
            bottom.loglog(*zip(*points, strict=True) if points else ([], []), ".", color=colour, label=name)
        bottom.set_xlabel("factor on the singular values")
    panels[0, 0].set_ylabel("steps of Adam")
    panels[1, 0].set_ylabel("sigma_max")
    (curves, names), (more, others) = (axes.get_legend_handles_labels() for axes in panels[:, 0])
    figure.legend(curves + more, names + others, loc="outside lower center", ncols=4, frameon=False)
    return figure


def draw_kept(plt: Any) -> Any:
    """DLR-Lock: numbers a token kept for backward, against depth."""
    base, *rows = load("kept")
    figure, axes = plt.subplots(figsize=(6.5, 4), layout="constrained")
    depths = [row["depth"] for row in rows if row["norm"] == "rms"]
    for norm, colour in (("rms", RED), ("none", BLUE)):
        mine = [row for row in rows if row["norm"] == norm]
        axes.plot(depths, [row["formula"] for row in mine], "-", color=colour, label=f"norm {norm}: formula")
        axes.plot(depths, [row["kept"] for row in mine], "o", color=colour, label=f"norm {norm}: counted")
        axes.plot(depths, [row["checkpointed_peak"] for row in mine], "s--", color=colour, markerfacecolor="white",
                  label=f"norm {norm}: peak with sqrt(L) segments")  # fmt: skip
    for key, style, name in (("lean", ":", "L(d + r)"), ("padded", "-.", "L(2d + 2r)")):
        axes.plot(depths, [row[key] for row in rows if row["norm"] == "rms"], style, color=GREY, label=name)
    axes.axhline(base["kept"], color="black", linewidth=0.8, label="SwiGLU, kept")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    axes.set(xlabel="depth L (equal parameters)", ylabel="numbers a token")
    axes.legend(fontsize=7)
    return figure


def draw_masks(plt: Any) -> Any:
    """PMP: overlap of masks against the number of batches that scores are averaged over."""
    figure, panels = plt.subplots(1, 2, figsize=(8, 3.6), sharey=True, layout="constrained")
    for axes, (model, title) in zip(panels, (("tiny", "pretrained (tiny)"), ("random", "random weights")), strict=True):
        rows = [row for row in load("masks") if row["model"] == model]
        for share, colour in zip(dict.fromkeys(row["share"] for row in rows), (BLUE, GOLD, RED), strict=True):
            for scope, style in (("all", "o-"), ("matrices", "s--")):
                mine = [row for row in rows if (row["share"], row["scope"]) == (share, scope)]
                axes.plot([row["batches"] for row in mine], [row["iou"] for row in mine], style, color=colour,
                          label=f"rho {share:g}, {scope}")  # fmt: skip
            axes.axhline(mine[0]["independent"], color=colour, linestyle=":")
        axes.axhline(0.99, color="black", linewidth=0.8)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set(title=title, xlabel="minibatches averaged", ylim=(0, 1.02))
    panels[0].set_ylabel("IoU (dotted: random masks; line: 0.99)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


FIGURES_BY_NAME = {
    "theory-quadratic": draw_quadratic, "theory-bounds": draw_bounds,
    "theory-kept": draw_kept, "theory-masks": draw_masks,
}  # fmt: skip


def draw(folder: Path) -> None:
    """All figures as SVG; equal numbers give equal bytes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    with plt.rc_context({"svg.hashsalt": "lockbench", "svg.fonttype": "none", "font.size": 9}):
        for name, make in FIGURES_BY_NAME.items():
            figure = make(plt)
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
            plt.close(figure)


def rounded(value: Any) -> Any:
    """Six digits: what is stable over machines, and enough."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return {key: rounded(each) for key, each in value.items()} if isinstance(value, dict) else value


def main() -> None:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    if not parser.parse_args().draw:
        import torch

        torch.set_num_threads(1)
        found = {}
        for name, measure in SECTIONS.items():
            began = time.process_time()
            found[name] = rounded(measure())
            print(f"{name}: {time.process_time() - began:.0f} CPU seconds", file=sys.stderr, flush=True)
        text = json.dumps(found, indent=None, separators=(",", ":")).replace("},{", "},\n{")
        DATA.write_text(text + "\n", encoding="utf-8")
    draw(FIGURES)


if __name__ == "__main__":
    main()
