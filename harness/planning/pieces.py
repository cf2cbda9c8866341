"""The pieces of a cell that can be made on their own, into the cache; what a matrix shares, and what workers take on.

Nothing is handed back: whoever writes the record asks the workshop for everything in order, and finds in the cache, or
waits for, what another process has made. `ahead` shares out the pieces of one cell between processes of one command;
`plan` gives those that several cells need to an executor, each once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from harness.cache import digest_of

if TYPE_CHECKING:
    from harness.plugins import Released
    from harness.spec import Spec
    from harness.workshop import Lock, Workshop

Kind = Literal["load", "control", "base", "lock", "locked", "reference", "attacked"]
"""`load` only sees that the model can be loaded; `base` and `locked` are the scores and utility of untouched models."""
SHARED: tuple[Kind, ...] = ("control", "base", "lock", "locked", "reference")
"""What cells can have in common, in the order in which it is made."""


@dataclass(frozen=True)
class Piece:
    """Something of a cell that can be made on its own."""

    spec: dict[str, Any]
    kind: Kind
    replicate: int = 0


def make(piece: Piece, workshop: Workshop) -> None:
    """Make one piece, into the cache.

    Raises:
        Exception: whatever the workshop raises; nothing is recorded of it here.
    """
    from harness.spec import Spec

    spec = Spec.parse(piece.spec, "spec")
    if piece.kind == "load":
        workshop.base(spec)
    elif piece.kind == "lock":
        workshop.lock(spec, workshop.base(spec))
    elif piece.kind == "control":
        workshop.lock(spec, workshop.base(spec), control=True)
    elif piece.kind in ("base", "locked"):
        _untouched(piece, spec, workshop)
    else:
        _attack(piece, spec, workshop)


def _untouched(piece: Piece, spec: Spec, workshop: Workshop) -> None:
    task = spec.build_task(workshop.data_dir)
    model = workshop.base(spec)
    base = workshop.unlocked(spec, _control(spec, workshop, model))
    if piece.kind == "base":
        workshop.scores(spec, task, base, "base")
        workshop.utility(spec, base)
        return
    locked = workshop.locked(spec, workshop.lock(spec, model))
    workshop.scores(spec, task, locked, "locked")
    workshop.utility(spec, locked)
    if base.digest != locked.digest:
        workshop.fidelity(spec, base, locked)


def _attack(piece: Piece, spec: Spec, workshop: Workshop) -> None:
    from harness.search.attacker import search

    task = spec.build_task(workshop.data_dir)
    lock, control = _locks(spec, workshop, wanted=piece.kind != "reference")

    def base() -> Released:
        return workshop.unlocked(spec, control)

    if piece.kind == "reference":
        found = search(workshop, spec, task, base, base, "reference")
        workshop.run(spec, task, base(), "reference", piece.replicate, None, found)
        return
    assert lock is not None
    secret = workshop.secret(lock)
    found = search(workshop, spec, task, lambda: workshop.locked(spec, lock), base, "attacked", secret)
    workshop.run(spec, task, workshop.locked(spec, lock), "attacked", piece.replicate, secret, found)


def _locks(spec: Spec, workshop: Workshop, *, wanted: bool) -> tuple[Lock | None, Lock | None]:
    """The lock, where it is `wanted`, and the control, where there is one; the base that they are of is gone after."""
    model = workshop.base(spec)
    control = _control(spec, workshop, model)
    return workshop.lock(spec, model) if wanted else None, control


def _control(spec: Spec, workshop: Workshop, model: Released) -> Lock | None:
    return workshop.lock(spec, model, control=True) if spec.build_defense().pretrains else None


def shared(spec: Spec) -> dict[str, Piece]:
    """The pieces of a cell that other cells may need too, by a name that those cells give them as well.

    The names follow the keys of the cache, as far as they are known without loading the model: cells that agree on a
    name share the entry. (Where they would share one without agreeing, the cache still makes it once.)
    """
    raw: dict[str, Any] = spec.model_dump(mode="json")
    defense = spec.build_defense()
    place: dict[str, Any] = {key: raw[key] for key in ("model", "own", "precision", "device") if key in raw}
    made = {**place, "corpus": raw.get("corpus"), "seed": raw["seed"]}  # a classifier's lock reads `own`, and no corpus
    lock = {**made, "defense": raw["defense"]}
    control = {**made, "control": {"name": raw["defense"]["name"], **defense.control_settings()}}
    base = control if defense.pretrains else place
    scored = {"task": raw["task"], "utility": raw.get("utility")}
    attacker = {key: raw.get(key) for key in ("attack", "budget", "search", "seed", *scored)}
    found = {_name("base", {**base, **scored}): Piece(raw, "base"), _name("lock", lock): Piece(raw, "lock"),
             _name("locked", {**lock, **scored}): Piece(raw, "locked")}  # fmt: skip
    if defense.pretrains:
        found[_name("control", control)] = Piece(raw, "control")
    for replicate in range(spec.replicates):
        name = _name("reference", {**base, **attacker, "replicate": replicate})
        found[name] = Piece(raw, "reference", replicate)
    return found


def _name(kind: Kind, key: dict[str, Any]) -> str:
    return f"{kind}-{digest_of(key)[:16]}"
