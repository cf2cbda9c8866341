"""The grid: models x defenses x attacks x tasks x seeds, as cells, and the run of them all. Imports no torch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError
from harness.records.record_files import finished
from harness.settings import unknown
from harness.spec import Spec, resolve
from harness.suites import expand

if TYPE_CHECKING:
    from harness.executors.base import Executor, Place
    from harness.planning.scheduler import Rules, Watcher
    from harness.records.record import Record

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


def run_matrix(cells: Sequence[Spec], *, place: Place, executor: Executor, watcher: Watcher,
               rules: Rules | None = None) -> Iterator[Record]:  # fmt: skip
    """Run or resume every cell; one cell's failure does not stop the others.

    Args:
        cells: from `plan`.
        place: where the files are.
        executor: over the same place; it is closed at the end.
        watcher: is told what happens.
        rules: what is tolerated.

    Yields:
        The record of each cell: first of those that are complete already, then as they end.

    Raises:
        UsageError: a model that cannot be loaded; found before the first cell runs, where there are several models.
        OSError: there is no room for results; what is finished is kept.
    """
    from harness.planning.plan import jobs
    from harness.planning.scheduler import Rules, Scheduler

    left = []
    for spec in cells:
        record = finished(spec.id, spec.model_dump(mode="json"), place.out)
        if record is None:
            left.append(spec)
        else:
            yield record
    if left:
        yield from Scheduler(jobs(left), executor, place, watcher, rules or Rules()).run()
