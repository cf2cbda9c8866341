"""Every figure of a folder of results, one set a (model, task, budget)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.files import canonical_json
from harness.records.record import Record
from leaderboards.load import Results
from leaderboards.plots import board_figure, heat_map, search_figure, trajectory_figure
from leaderboards.units import budget_label

Draw = Callable[[Sequence[Record], Path, str], None]
KINDS: dict[str, Draw] = {"board": board_figure, "heat": heat_map, "trajectory": trajectory_figure,
                          "search": search_figure}  # fmt: skip
"""Recovery and bytes kept by attack; recovery by lock and attack; score against FLOPs; best score against trials."""
FORMATS = ("png", "svg", "pdf")


def draw(results: Results, folder: Path, kinds: Sequence[str], formats: Sequence[str]) -> list[tuple[Path, str]]:
    """Write the figures; equal results give equal files.

    Args:
        results: records and items.
        folder: an existing folder; files are called `kind-number.format`.
        kinds: of `KINDS`; a search is drawn only where there was one.
        formats: of `FORMATS`.

    Returns:
        Each file, and what it is of.

    Raises:
        Unavailable: matplotlib is not installed.
    """
    boards: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for cell in results.cells:
        spec = cell.record.spec
        boards[tuple(canonical_json(spec[part]) for part in ("model", "task", "budget"))].append(cell.record)
    written = []
    for number, (_, records) in enumerate(sorted(boards.items()), 1):
        first = records[0]
        title = f"{first.name('model')}, {first.name('task')}, {budget_label(first.spec['budget'])}"
        for kind in kinds:
            if kind == "search" and not any(record.search for record in records):
                continue
            for end in formats:
                path = folder / f"{kind}-{number}.{end}"
                KINDS[kind](records, path, title)
                written.append((path, f"{kind} of {title}"))
    return written
