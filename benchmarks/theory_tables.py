"""The tables of docs/theory.md from docs/data/theory.json; `documents.py` puts them in place."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

DATA = Path(__file__).parents[1] / "docs" / "data" / "theory.json"
Row = dict[str, Any]
FORMS = (("simple", "simple"), ("sum_form", "sum"), ("index_form", "index"))


def load(section: str) -> list[Row]:
    """Rows of one section."""
    rows: list[Row] = json.loads(DATA.read_text(encoding="utf-8"))[section]
    return rows


def quadratic() -> str:
    """Steps by condition number, both spectra."""
    heads = ["spectrum", "kappa", "gradient descent", "its bound", "accelerated", "its bound", "no method sure below",
             "conjugate gradients", "diagonal, random axes", "diagonal, own axes", "top 2 deflated",
             "Newton"]  # fmt: skip
    keys = ["spectrum", "kappa", "gradient_descent", "gradient_descent_bound", "accelerated", "accelerated_bound",
            "first_order_bound", "conjugate_gradients", "jacobi", "jacobi_aligned", "deflated", "newton"]  # fmt: skip
    return table(heads, [[row[key] for key in keys] for row in load("quadratic")])


def growth() -> str:
    """How the whole Hessian's largest singular value grows with one matrix's."""
    body = []
    for network, weight in pairs(load("bounds")):
        true = {(row["top"], row["factor"]): geometric(row["true"]) for row in of("bounds", network, weight)}
        body.append([network, weight, *(f"{true[None, factor]:.3g}" for factor in (1.0, 10.0, 100.0)),
                     f"{math.log10(true[None, 100.0] / true[None, 10.0]):.2f}",
                     f"{math.log10(true[1, 100.0] / true[1, 10.0]):.2f}"])  # fmt: skip
    return table(["network", "matrix", "x 1", "x 10", "x 100", "exponent", "exponent, only sigma_1"], body)


def tightness() -> str:
    """Where each bound says something, and how far below the truth it is there."""
    body = []
    for network, weight in pairs(load("bounds")):
        body.append([network, weight, *(_tightness(of("bounds", network, weight), key) for key, _ in FORMS)])
    return table(["network", "matrix", *(f"{name}: not vacuous; true / bound" for _, name in FORMS)], body)


def _tightness(rows: list[Row], key: str) -> str:
    found = [(bound, true) for row in rows for bound, true in zip(row[key], row["true"], strict=True)]
    if found[0][0] is None:
        return "no product"
    ratios = [true / bound for bound, true in found if bound > 0]
    span = f"; {min(ratios):.3g} to {max(ratios):.3g}" if ratios else ""
    return f"{len(ratios)} of {len(found)}{span}"


def adam() -> str:
    """Steps of Adam by factor, for each rate and for the attacker who scales back."""
    rows, body = load("adam"), []
    keys = dict.fromkeys((row["network"], row["weight"], row["factor"]) for row in rows)
    for key in keys:
        mine = [row for row in rows if (row["network"], row["weight"], row["factor"]) == key]
        plain = {row["rate"]: row["steps"] for row in mine if not row["undo"]}
        undone = next(row["steps"] for row in mine if row["undo"])
        body.append([*key[:2], f"{key[2]:g}", *(count(steps) for steps in plain.values()), count(undone)])
    rates = dict.fromkeys(f"lr {row['rate']:g}" for row in rows)
    return table(["network", "matrix", "factor", *rates, "scaled back, lr 0.001"], body)


def kept() -> str:
    """Numbers a token by depth."""
    base, *rows = load("kept")
    body = [["SwiGLU", "", "", "", "", base["formula"], f"{base['kept']:g}", "1.00", "", "", f"{base['peak']:.1f}"]]
    for row in rows:
        body.append([row["depth"], f"{row['rank']:g}", row["norm"], row["lean"], row["padded"], row["formula"],
                     f"{row['kept']:g}", f"{row['kept'] / base['kept']:.2f}", row["checkpointed_formula"],
                     f"{row['checkpointed_kept']:g}", f"{row['checkpointed_peak']:.1f}"])  # fmt: skip
    return table(["depth", "rank", "norm", "L(d+r)", "L(2d+2r)", "formula", "counted", "x SwiGLU",
                  "sqrt(L) segments: formula", "counted", "peak of backward"], body)  # fmt: skip


def masks() -> str:
    """Overlap of masks by share and number of batches averaged."""
    rows, body = load("masks"), []
    sizes = list(dict.fromkeys(row["batches"] for row in rows))
    for key in dict.fromkeys((row["model"], row["scope"], row["share"]) for row in rows):
        mine = {row["batches"]: row for row in rows if (row["model"], row["scope"], row["share"]) == key}
        random, found = mine[sizes[0]]["independent"], (mine[size]["iou"] for size in sizes)
        body.append([*key[:2], f"{key[2]:g}", f"{random:.3f}", *(f"{each:.3f}" for each in found)])
    heads = [f"{size} batch{'es' if size > 1 else ''}" for size in sizes]
    return table(["weights", "parameters", "share", "random masks", *heads], body)


def count(steps: list[int | None]) -> str:
    """Median of the seeds, or how many got there."""
    done = [value for value in steps if value is not None]
    if len(done) == len(steps):
        return f"{median(done):g}"
    return f"{len(done)} of {len(steps)}"


def of(section: str, network: str, weight: str) -> list[Row]:
    """Rows of one matrix."""
    return [row for row in load(section) if (row["network"], row["weight"]) == (network, weight)]


def pairs(rows: list[Row]) -> list[tuple[str, str]]:
    """(network, matrix) in order."""
    return list(dict.fromkeys((row["network"], row["weight"]) for row in rows))


def geometric(values: list[float]) -> float:
    """Geometric mean."""
    return math.exp(sum(map(math.log, values)) / len(values))


def table(heads: list[str], body: list[list[Any]]) -> str:
    """Markdown."""
    lines = [heads, ["---"] * len(heads), *body]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


PARTS: dict[str, Callable[[], str]] = {
    "quadratic": quadratic, "growth": growth, "tightness": tightness, "adam": adam, "kept": kept, "masks": masks,
}  # fmt: skip
"""Generated parts of docs/theory.md by tag."""
