"""The grid: models x defenses x attacks x tasks x seeds, one cell after the other; the cache does shared work once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cache import digest_of
from harness.errors import UsageError
from harness.settings import unknown
from harness.spec import Spec, resolve
from harness.suites import expand

if TYPE_CHECKING:
    from harness.record import Record
    from harness.workshop import Workshop

AXES = {"models": "model", "defenses": "defense", "attacks": "attack", "tasks": "task", "seeds": "seed"}


def plan(grid: Mapping[str, Any], common: Mapping[str, Any]) -> list[Spec]:
    """Every cell of the grid, resolved; cheap ones share work with those before them (same model and lock in a row).

    Args:
        grid: lists by axis (`models`, `defenses`, `attacks`, `tasks`, `seeds`); a name or a mapping each; a suite
            among the attacks stands for all of its own.
        common: raw spec values for every cell (budget, utility, replicates, ...), an axis' singular included.

    Raises:
        UsageError: an unknown axis, an empty axis, or whatever `resolve` refuses; equal cells are refused too.
    """
    for axis in grid:
        if axis not in AXES:
            raise UsageError(unknown(axis, AXES, "axis of the matrix"))
        if not grid[axis]:
            raise UsageError(f"{axis} of the matrix is empty")
    axes = [[(AXES[axis], value) for value in grid[axis]] for axis in AXES if axis in grid]
    cells = [resolve(raw) for point in itertools.product(*axes) for raw in expand({**common, **dict(point)})]
    seen: dict[str, Spec] = {}
    for cell in cells:
        if cell.id in seen:
            raise UsageError(f"the matrix names the same cell twice: {cell.title()}")
        seen[cell.id] = cell
    return cells


def split_file(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A matrix file as (grid, common)."""
    grid = {key: value if isinstance(value, list) else [value] for key, value in values.items() if key in AXES}
    return grid, {key: value for key, value in values.items() if key not in AXES}


def run_matrix(cells: Sequence[Spec], *, out: Path, workshop: Workshop) -> Iterable[Record]:
    """Run or resume each cell in order; one cell's failure does not stop the next.

    Raises:
        UsageError: a model that cannot be loaded; found before the first cell runs, where there are several models.
    """
    from harness.cell import run_cell

    models = {digest_of(spec.model): spec for spec in cells}
    for spec in models.values() if len(models) > 1 else ():
        workshop.base(spec)
    for index, spec in enumerate(cells, 1):
        workshop.progress.note(f"[{index}/{len(cells)}] {spec.title()}  ({spec.id})")
        yield run_cell(spec, out=out, workshop=workshop)
