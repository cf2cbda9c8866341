"""The Python API: a cell or a grid of cells from a script or a notebook, as `harness run` and `harness matrix` do it.

Results and cache are the command line's, so one can go on where the other stopped.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError
from harness.spec import Spec

if TYPE_CHECKING:
    from harness.records.record import Record


def run(spec: Spec | Mapping[str, Any], **options: Any) -> Record:
    """Lock a model, attack it, attack the base the same way, score both; or find the cell finished.

    Args:
        spec: a resolved spec, or raw values under the keys that `harness run` prints; what is left out has its default.
        **options: see `matrix`.

    Returns:
        The record: typed, also on disk as `<out>/cells/<id>/record.json`. What goes wrong in an attack is its `status`.

    Raises:
        UsageError: an impossible spec, a missing model or data; a suite of attacks (give that to `matrix`).

    >>> import harness
    >>> record = harness.run(
    ...     {"model": "tiny", "defense": "none", "attack": {"name": "lora", "max_steps": 4, "eval_points": 1},
    ...      "replicates": 1, "utility": {"limit": 8, "perplexity_tokens": 1000},
    ...      "task": {"name": "python_source", "max_items": 8, "train_bytes": 60000}},
    ...     out="results")
    >>> record.status, record.gain.n_items
    ('complete', 8)
    >>> record.score.attacked.value > record.score.base.value
    True
    >>> record.cost.attack.tokens == 4 * 8 * 128
    True
    """
    if isinstance(spec, Spec):
        cells = [spec]
    else:
        from harness.planning.grid import plan

        cells = plan({}, spec)
    if len(cells) != 1:
        raise UsageError(f"this spec stands for {len(cells)} cells (a suite of attacks): harness.matrix runs them")
    return _run(cells, **options)[0]


def matrix(grid: Mapping[str, Any], common: Mapping[str, Any] | None = None, **options: Any) -> list[Record]:
    """Run or resume every cell of a grid, one after the other; what cells share is made once.

    Args:
        grid: lists by axis: `models`, `defenses`, `attacks` (suites too), `tasks`, `seeds`; an entry is a name, or a
            mapping with a name and settings.
        common: what all cells share, under the keys of a spec.
        **options: `out` (folder of results, default `results`), `data_dir` and `cache` (default: as the command line),
            `workers` (processes, default 1: a script that takes more must guard its main module), `quiet` (default
            True), `report_to` (as `--report_to`).

    Returns:
        The records, in the order of the grid.

    Raises:
        UsageError: an impossible grid or spec, a missing model or data; nothing has run by then.

    >>> import harness
    >>> harness.matrix({"defenses": ["none"], "attacks": ["loar"]})
    Traceback (most recent call last):
    ...
    harness.errors.UsageError: unknown attack 'loar'. Did you mean 'lora'? Allowed: ...
    """
    from harness.planning.grid import plan

    return _run(plan(grid, common or {}), **options)


def _run(
    cells: Sequence[Spec],
    *,
    out: str | Path = "results",
    data_dir: str | Path | None = None,
    cache: str | Path | None = None,
    workers: int = 1,
    quiet: bool = True,
    report_to: str | None = None,
) -> list[Record]:
    from harness.cache import Cache, default_root
    from harness.cell import run_cell
    from harness.cli.checks import check_inputs, check_places
    from harness.planning.ahead import working_ahead
    from harness.progress import Progress
    from harness.quiet import quiet_libraries, stdout_kept
    from harness.tracking import Reporting, parse_names

    data = data_dir or os.environ.get("HARNESS_DATA") or None
    place, kept = Path(out), Path(cache) if cache else None
    reporting = Reporting(parse_names(report_to), place / "logs")
    check_inputs(cells, Path(data) if data else None)
    check_places(place, kept)
    quiet_libraries()
    from harness.workshop import Workshop

    progress = Progress(quiet=quiet)
    workshop = Workshop(cache=Cache(kept or default_root()), data_dir=Path(data) if data else None, progress=progress,
                        reporting=reporting)  # fmt: skip
    with stdout_kept(), progress.showing(), working_ahead(workshop, workers):
        return [run_cell(cell, out=place, workshop=workshop) for cell in cells]
