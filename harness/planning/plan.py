"""From cells to jobs: every cell, and before the cells whatever several of them share, each once. Imports no torch.

What only one cell needs is no job of its own: the cell makes it, and a process less is started.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from harness.cache import digest_of
from harness.planning.pieces import SHARED, Piece, shared
from harness.settings import Settings
from harness.spec import Spec

JobKind = Literal["load", "control", "base", "lock", "locked", "reference", "cell"]


class Job(Settings):
    """One thing for an executor to do: a cell, or a piece that cells share."""

    id: str
    """The cell's id, or `<kind>-<hash>`; also the name of its claim."""
    kind: JobKind
    """`cell`, or which piece."""
    spec: dict[str, Any]
    """The resolved spec of the cell, or of the first cell that needs the piece."""
    replicate: int = 0
    """Which attack seed, of a reference."""
    needs: tuple[str, ...] = ()
    """Jobs that must have ended before."""
    title: str
    """For people."""
    cells: int = 1
    """Cells that need it."""
    seconds: float | None = Field(None, ge=0)
    """What it is expected to take, from earlier records; null: there is no precedent."""

    @property
    def piece(self) -> Piece:
        """What to make, where it is no cell."""
        assert self.kind != "cell"
        return Piece(self.spec, self.kind, self.replicate)


def jobs(cells: Sequence[Spec]) -> list[Job]:
    """The jobs of these cells, every job after those that it needs.

    With several models, each is loaded once before anything else, so that a broken one is found before hours are spent.
    """
    wanted: dict[str, list[int]] = {}
    pieces: dict[str, Piece] = {}
    for index, spec in enumerate(cells):
        for name, piece in shared(spec).items():
            wanted.setdefault(name, []).append(index)
            pieces.setdefault(name, piece)
    kept = {name: of for name, of in wanted.items() if len(of) > 1}
    models = {digest_of(spec.model): spec for spec in cells}
    found = [_load(spec) for spec in models.values()] if len(models) > 1 else []
    made = [_job(name, pieces[name], cells[of[0]], len(of), _before(pieces[name], of, kept, pieces))
            for name, of in sorted(kept.items(), key=lambda item: (item[1][0], SHARED.index(pieces[item[0]].kind)))
            ]  # fmt: skip
    needs: dict[int, list[str]] = {}
    for name, of in kept.items():
        for index in of:
            needs.setdefault(index, []).append(name)
    last = [Job(id=spec.id, kind="cell", spec=spec.model_dump(mode="json"), title=spec.title(),
                needs=tuple(sorted(needs.get(index, ()), key=lambda name: SHARED.index(pieces[name].kind))))
            for index, spec in enumerate(cells)]  # fmt: skip
    return [*found, *made, *last]


def _before(piece: Piece, of: list[int], kept: dict[str, list[int]], pieces: dict[str, Piece]) -> tuple[str, ...]:
    """Of the kept pieces, those that this one is made from: a lock before its scores, a control before its own."""
    sources = {"base": ("control",), "reference": ("control",), "locked": ("control", "lock")}.get(piece.kind, ())
    return tuple(name for name, users in kept.items() if pieces[name].kind in sources and set(of) <= set(users))


def _load(spec: Spec) -> Job:
    return Job(id=f"load-{digest_of(spec.model)[:16]}", kind="load", spec=spec.model_dump(mode="json"),
               title=f"load {spec.model.name}")  # fmt: skip


def _job(name: str, piece: Piece, spec: Spec, cells: int, needs: tuple[str, ...]) -> Job:
    model, defense = spec.model.name, spec.defense["name"]
    control_of = f"control of {defense} on {model}"
    base = control_of if spec.build_defense().pretrains else model
    titles = {"base": f"scores of {base} on {spec.task['name']}", "control": f"{control_of}, seed {spec.seed}",
              "lock": f"lock {defense} on {model}, seed {spec.seed}",
              "locked": f"scores of {model} locked by {defense} on {spec.task['name']}, seed {spec.seed}",
              "reference": f"reference {spec.attack['name']} on {base}, {spec.task['name']}, seed {spec.seed} "
                           f"({piece.replicate + 1} of {spec.replicates})"}  # fmt: skip
    return Job(id=name, kind=piece.kind, spec=piece.spec, replicate=piece.replicate, needs=needs,
               title=titles[piece.kind], cells=cells)  # fmt: skip
