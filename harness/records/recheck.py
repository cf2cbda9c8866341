"""What of a record this machine can recompute beside its figures: digests of data and weights. Torch only when needed.

A run in the cache is recognised by its attack and its items; what the cache holds of it, and of the search before it,
must then agree.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache as memoize
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cache import digest_of, is_whole
from harness.errors import UsageError
from harness.files import canonical_json
from harness.records.items import Item, read_items

if TYPE_CHECKING:
    from harness.numbers.robustness import Cell
    from harness.records.record import Record


@dataclass(frozen=True)
class Mismatch:
    """A value that does not follow from the evidence."""

    cell: str
    field: str
    recorded: Any
    recomputed: Any

    def __str__(self) -> str:
        if self.field == "record":
            return f"{self.cell}: not {self.recomputed}: {self.recorded}"
        return f"{self.cell}: {self.field} is {self.recorded!r} in the record and {self.recomputed!r} from the evidence"


@dataclass(frozen=True)
class Finding:
    """One check: the value found, or why there is none."""

    field: str
    recorded: Any
    found: Any = None
    reason: str | None = None

    @property
    def agrees(self) -> bool:
        """Whether the record says what was found."""
        return self.reason is None and self.found == self.recorded


def recheck(cells: Sequence[Cell], *, data_dir: Path | None, cache: Path) -> tuple[list[Mismatch], list[str]]:
    """Check the digests of the cells.

    Args:
        cells: records and items.
        data_dir: the data pack, for tasks and models that are in it.
        cache: the cache that the cells were run with, if it is still there.

    Returns:
        The mismatches, and a line for each kind of check: how many cells it was done for, and why not for others.
    """
    machine = _Machine(data_dir, cache)
    mismatches, done, left = [], Counter[str](), Counter[tuple[str, str]]()
    for cell in cells:
        for finding in machine.findings(cell):
            kind = finding.field.partition(" ")[0]
            if finding.reason is not None:
                left[kind, finding.reason] += 1
                continue
            done[kind] += 1
            if not finding.agrees:
                mismatches.append(Mismatch(cell.record.id, finding.field, finding.recorded, finding.found))
    kinds = dict.fromkeys([*done, *(kind for kind, _ in left)])
    missing = {kind: "".join(f"; not {count} times: {reason}" for (other, reason), count in left.items()
               if other == kind) for kind in kinds}  # fmt: skip
    notes = [f"{kind}: rechecked {done[kind]} times{missing[kind]}" for kind in kinds]
    return mismatches, notes


class _Machine:
    """What is here to check against."""

    def __init__(self, data_dir: Path | None, cache: Path) -> None:
        self._data_dir, self._cache = data_dir, cache
        self._runs = list(_entries(cache / "runs", "run.json"))
        self._locks = {saved["digest"]: folder for room in ("locks", "controls")
                       for folder, _, saved in _entries(cache / room, "lock.json")}  # fmt: skip
        self._bases: set[str | None] | None = None
        self._task, self._base = memoize(self._task_digest), memoize(self._base_digest)
        self._lock = memoize(self._lock_digest)

    def findings(self, cell: Cell) -> Iterator[Finding]:
        """Every check of one cell."""
        record, weights = cell.record, cell.record.provenance.weights
        yield self._data(record)
        yield from _declared(record)
        name, dtype = record.name("model"), record.model.dtype
        if weights.base is not None:
            own = record.spec.get("own") is not None  # then its owner made it, and the cache may have it
            control = record.model.control is not None  # then it was pretrained, and the cache may have that
            found, reason = (self._lock(weights.base, dtype or "float32") if control
                             else self._made(weights.base, dtype or "float32") if own
                             else self._base(name, dtype or "float32"))  # fmt: skip
            yield Finding("provenance.weights.base", weights.base, found, reason)
        if weights.locked is not None:
            found, reason = self._lock(weights.locked, dtype or "float32")
            yield Finding("provenance.weights.locked", weights.locked, found, reason)
        for side, digests, target in (("attacked", weights.attacked, weights.locked),
                                      ("reference", weights.reference, weights.base)):  # fmt: skip
            seeds = record.provenance.seeds.get(side, [])
            for seed, digest in zip(seeds, digests, strict=False):
                yield from self._run(cell, side, seed, digest, target, first=seed == seeds[0])

    def _data(self, record: Record) -> Finding:
        import platform

        python, ours = record.provenance.machine.python, platform.python_version()
        if record.provenance.data and python and python != ours:  # embedded tasks are cut from the standard library
            elsewhere = f"made under Python {python}, this is {ours}"
            return Finding("task.digest", record.task.digest, reason=elsewhere)
        found, reason = self._task(canonical_json(record.spec["task"]))
        return Finding("task.digest", record.task.digest, found, reason)

    def _task_digest(self, task: str) -> tuple[str | None, str | None]:
        from harness import registry
        from harness.spec import build

        try:
            chosen = json.loads(task)
            chosen = chosen if isinstance(chosen, dict) else {"name": chosen}
            return build(registry.tasks(), chosen, "task", self._data_dir).digest(), None
        except UsageError as error:
            return None, str(error)

    def _base_digest(self, name: str, dtype: str) -> tuple[str | None, str | None]:
        from harness import registry

        if name not in registry.models().names():
            return None, f"{name!r} is not a known model"
        return self._digest(name, dtype)

    def _made(self, digest: str, dtype: str) -> tuple[str | None, str | None]:
        """Of a classifier that its owner made, or that stands in a folder."""
        if self._bases is None:
            folders = [folder for folder in sorted((self._cache / "bases").glob("*/model")) if is_whole(folder.parent)]
            self._bases = {self._digest(str(folder), dtype)[0] for folder in folders}
        return (digest, None) if digest in self._bases else (None, "not in this cache")

    def _lock_digest(self, digest: str, dtype: str) -> tuple[str | None, str | None]:
        if digest not in self._locks:
            return None, "not in this cache"
        return self._digest(str(self._locks[digest] / "model"), dtype)

    def _digest(self, name: str, dtype: str) -> tuple[str | None, str | None]:
        from harness.models.load import load_model

        try:
            return load_model(name, data_dir=self._data_dir, dtype=dtype).digest, None
        except UsageError as error:
            return None, str(error)

    def _run(self, cell: Cell, side: str, seed: int, digest: str, target: str | None, *, first: bool
             ) -> Iterator[Finding]:  # fmt: skip
        """What the record says of this side and seed, against the run in the cache that has the very items of it.

        Several may: of two attacks, or two versions, that train alike. Then it is the one that agrees best.
        """
        field, record = f"provenance.weights.{side}", cell.record
        curve = getattr(record.search, side) if record.search else None
        rows = {row for row in cell.items if (row.model, row.seed) == (side, seed) and row.metric == record.task.metric}

        def against(key: dict[str, Any], saved: dict[str, Any]) -> Iterator[Finding]:
            yield Finding(f"{field} of seed {seed}", digest, saved["digest"])
            yield Finding(f"provenance.weights.{'locked' if side == 'attacked' else 'base'} before the {side} run",
                          target, key.get("model"))  # fmt: skip
            other = None if curve is None or digest_of(curve) == key["search"] else "the cache has another search"
            if curve is not None:
                yield Finding(f"search.{side}", None, reason=other)
            if first and side == "attacked":
                bills = {stage: bill.model_dump(mode="json") for stage in ("undo", "search", "attack")
                         if (bill := getattr(record.cost, stage)) is not None}  # fmt: skip
                yield Finding("cost (undo, search, attack)", bills, saved["bills"], other)

        found = [list(against(key, saved)) for folder, key, saved in self._runs
                 if key.get("seed") == seed and _of_attack(key, record, searched=curve is not None)
                 and _scored(folder, record.task.metric) == rows]  # fmt: skip
        if found:
            yield from min(found, key=lambda run: sum(not one.agrees for one in run))
        else:
            yield Finding(field, digest, reason="the run is not in this cache")


def _of_attack(key: dict[str, Any], record: Record, *, searched: bool) -> bool:
    """Whether a run is of the record's attack; of one that was searched, whatever settings were found."""
    if searched != ("search" in key):
        return False
    same: bool = key["attack"]["name"] == record.name("attack") if searched else key["attack"] == record.spec["attack"]
    return same


def _declared(record: Record) -> Iterator[Finding]:
    """What the installed attack and task say of themselves: an attack that knows the secret cannot pass for another."""
    from harness import registry
    from harness.spec import build

    for part, plugins, names in (("attack", registry.attacks(), ("knowledge",)),
                                 ("task", registry.tasks(), ("metric", "unit", "chance"))):  # fmt: skip
        section: Any = record.provenance if part == "attack" else record.task
        where, chosen = "provenance" if part == "attack" else "task", record.spec[part]
        for name in names:
            recorded, found, reason = getattr(section, name), None, None
            try:
                plugin = build(plugins, chosen if isinstance(chosen, dict) else {"name": chosen}, part,
                               *([None] if part == "task" else []))  # fmt: skip
                found = getattr(plugin, name)
            except UsageError as error:
                reason = str(error)
            if recorded is not None:
                yield Finding(f"{where}.{name}", recorded, getattr(found, "value", found), reason)


def _entries(room: Path, name: str) -> Iterator[tuple[Path, dict[str, Any], dict[str, Any]]]:
    """Whole entries of one room of a cache: folder, key, and the JSON document `name` in it."""
    for path in sorted(room.glob(f"*/{name}")):
        if is_whole(path.parent):
            key = json.loads((path.parent / "entry.json").read_text())["key"]
            yield path.parent, key, json.loads(path.read_text())


def _scored(folder: Path, metric: str) -> set[Item]:
    return {row for row in read_items(folder / "items.parquet") if row.metric == metric}
