"""Figures of a folder of results: what each attack recovered and what it cost. Needs the extra `report`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import Unavailable
from harness.numbers.labels import attack_of, label_of, labels
from harness.records.record import Record
from leaderboards.formats import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#888888", "#1b6ca8", "#d1495b", "#2e8b57", "#b8860b", "#6a4c93")
"""Grey is the first defense in name order that is `none`."""


def board_figure(records: Sequence[Record], output: Path, title: str = "") -> None:
    """One picture of a result: recovery with its interval by attack and defense, and bytes kept for backward.

    Args:
        records: of one model, task and budget.
        output: a .png, .svg or .pdf file.
        title: above the figure.

    Raises:
        Unavailable: matplotlib is not installed.
    """
    plt = _pyplot()
    grid = _grid(records)
    attacks, defenses = _names(grid)
    height = 1.2 + 0.32 * len(attacks) * max(1, len(defenses)) * 0.75
    size = (9, max(3.0, height))
    figure, (left, right) = plt.subplots(1, 2, sharey=True, figsize=size, width_ratios=(3, 2), layout="constrained")
    for column, defense in enumerate(defenses):
        offset = (column - (len(defenses) - 1) / 2) * 0.8 / len(defenses)
        for row, attack in enumerate(attacks):
            for record in grid.get((defense, attack), []):
                _recovery_mark(left, record, row + offset, _COLOURS[column % len(_COLOURS)])
        bars = {row + offset: kept for row, attack in enumerate(attacks) if (kept := _kept(grid, defense, attack))}
        right.barh(list(bars), [kept / 2**20 for kept in bars.values()], height=0.7 / len(defenses),
                   color=_COLOURS[column % len(_COLOURS)], label=_plain(defense))  # fmt: skip
    _frame(left, right, attacks)
    handles, names = right.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=max(1, len(names)), frameon=False)
    _save(figure, output, title)


def trajectory_figure(records: Sequence[Record], output: Path, title: str = "") -> None:
    """Score on the selection split against FLOPs: every attack on its locked model, and dashed on the base.

    Args:
        records: of one task.
        output: a .png, .svg or .pdf file.
        title: above the figure.

    Raises:
        Unavailable: matplotlib is not installed.
    """
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for index, record in enumerate(records):
        colour = _COLOURS[(index + 1) % len(_COLOURS)]
        name = _plain(f"{record.name('defense')}, {record.name('attack')}, seed {record.spec['seed']}")
        for points, style, label in ((record.trajectory, "-", name), (record.reference_trajectory, "--", None)):
            flops, scores = [point.flops for point in points], [point.score for point in points]
            axes.plot(flops, scores, style, color=colour, label=label, marker=".")
    axes.set_xlabel("FLOPs spent by the attacker (dashed: on the base)")
    axes.set_ylabel(_plain(f"score, selection split ({records[0].task.unit})" if records else "score"))
    if records:
        axes.legend(fontsize=8)
    _save(figure, output, title)


def search_figure(records: Sequence[Record], output: Path, title: str = "") -> None:
    """Best score of each attacker's search against the number of trials; dashed on the base.

    Args:
        records: of one task; those without a search are left out.
        output: a .png, .svg or .pdf file.
        title: above the figure.

    Raises:
        Unavailable: matplotlib is not installed.
    """
    plt = _pyplot()
    searched = [record for record in records if record.search is not None]
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for index, record in enumerate(searched):
        colour = _COLOURS[(index + 1) % len(_COLOURS)]
        name = _plain(f"{record.name('defense')}, {record.name('attack')}, seed {record.spec['seed']}")
        for side, style, label in (("attacked", "-", name), ("reference", "--", None)):
            found = getattr(record.search, side)
            trials = [trial for trial in found.trials if trial.best is not None] if found else []
            axes.step([trial.number + 1 for trial in trials], [trial.best for trial in trials], style, where="post",
                      color=colour, label=label)  # fmt: skip
    axes.set_xlabel("trials (dashed: on the base)")
    axes.set_ylabel(_plain(f"best score, selection split ({searched[0].task.unit})" if searched else "best score"))
    if searched:
        axes.legend(fontsize=8)
    _save(figure, output, title)


def heat_map(records: Sequence[Record], output: Path, title: str = "") -> None:
    """Recovery by defense and attack; cells without one say why.

    Args:
        records: of one model, task and budget.
        output: a .png, .svg or .pdf file.
        title: above the figure.

    Raises:
        Unavailable: matplotlib is not installed.
    """
    plt = _pyplot()
    grid = _grid(records)
    attacks, defenses = _names(grid)
    values = [[_value(grid.get((defense, attack), [])) for attack in attacks] for defense in defenses]
    shown = [[float("nan") if value is None else value for value in row] for row in values]
    figure, axes = plt.subplots(figsize=(2 + 1.1 * len(attacks), 1.6 + 0.6 * len(defenses)), layout="constrained")
    image = axes.imshow(shown, cmap="RdYlBu_r", vmin=0, vmax=1, aspect="auto")
    for row, defense in enumerate(defenses):
        for column, attack in enumerate(attacks):
            value = values[row][column]
            text = f"{value:.2f}" if value is not None else _why(grid.get((defense, attack), []))
            axes.text(column, row, text, ha="center", va="center", fontsize=7)
    axes.set_xticks(range(len(attacks)), [_plain(name) for name in attacks], rotation=30, ha="right")
    axes.set_yticks(range(len(defenses)), [_plain(name) for name in defenses])
    figure.colorbar(image, label="recovery")
    _save(figure, output, title)


def _recovery_mark(axes: Axes, record: Record, y: float, colour: str) -> None:
    recovery = record.recovery
    if recovery.value is None:
        axes.text(0.02, y, _why([record]), fontsize=7, va="center", color=colour)
        return
    if recovery.low is not None and recovery.high is not None:
        axes.plot([recovery.low, recovery.high], [y, y], color=colour, linewidth=2, solid_capstyle="butt")
    hollow = bool(record.errors or record.utility.collapsed)
    axes.plot(recovery.value, y, "o", color=colour, markersize=6, markerfacecolor="white" if hollow else colour)


def _frame(left: Axes, right: Axes, attacks: Sequence[str]) -> None:
    left.axvline(0, color="black", linewidth=0.8)
    left.axvline(1, color="black", linewidth=0.8, linestyle=":")
    left.set_yticks(range(len(attacks)), [_plain(name) for name in attacks])
    meaning = "recovery with 95 % interval (0: the lock held, 1: it did nothing)\nhollow: collapsed or not counted"
    left.set_xlabel(meaning, fontsize=8)
    left.set_ylim(len(attacks) - 0.5, -0.5)
    if right.patches:
        right.set_xscale("log", base=2)
        right.xaxis.set_major_formatter("{x:g}")
    right.set_xlabel("MiB kept for backward (log)", fontsize=8)


def _grid(records: Sequence[Record]) -> dict[tuple[str, str], list[Record]]:
    defenses, attacks = labels([r.spec["defense"] for r in records]), labels([attack_of(r) for r in records])
    grid: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        key = (label_of(defenses, record.spec["defense"]), label_of(attacks, attack_of(record)))
        grid.setdefault(key, []).append(record)
    return grid


def _names(grid: dict[tuple[str, str], list[Record]]) -> tuple[list[str], list[str]]:
    attacks, defenses = sorted({attack for _, attack in grid}), sorted({defense for defense, _ in grid})
    return attacks, sorted(defenses, key=lambda name: (name != "none", name))


def _kept(grid: dict[tuple[str, str], list[Record]], defense: str, attack: str) -> int:
    bills = [record.cost.attack for record in grid.get((defense, attack), []) if record.cost.attack]
    return max((bill.kept_for_backward_bytes for bill in bills), default=0)


def _value(records: Sequence[Record]) -> float | None:
    """The largest recovery: what an attacker would report."""
    known = [record.recovery.value for record in records if record.recovery.value is not None and not record.errors]
    return max(known, default=None)


def _why(records: Sequence[Record]) -> str:
    if not records:
        return ""
    record = records[0]
    if record.status != "complete":
        return record.status.replace("_", " ")
    return "not counted" if record.errors else "undefined"


def _plain(text: str) -> str:
    """Text that matplotlib draws as it is: no mathematics from dollar signs."""
    return visible(text).replace("$", r"\$")


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise Unavailable("figures need matplotlib: pip install 'lockbench[report]'") from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def _save(figure: Any, output: Path, title: str) -> None:
    """Write the figure; no date and no random names inside, so that equal results give equal files."""
    import matplotlib

    if title:
        figure.suptitle(_plain(title), fontsize=9)
    metadata = {"Date": None} if output.suffix == ".svg" else {"CreationDate": None} if output.suffix == ".pdf" else {}
    with matplotlib.rc_context({"svg.hashsalt": "lockbench"}):
        figure.savefig(output, dpi=150, metadata=metadata)
    _pyplot().close(figure)
