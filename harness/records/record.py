"""The record: the JSON document that one finished cell leaves (design.md §5). Imports neither torch nor numpy.

Numbers are numbers; what is missing is null with a reason; there is no NaN. Items and log are written first and the
record last, with their sha256 inside and a seal over itself: a killed, damaged or edited cell never reads as complete.
A seal is no signature. It finds what was changed by accident or by hand; who makes a new one is found by what does not
follow from the items, and by running the cell again (`harness verify --rerun`).

Version 2 is version 1 with a seal. Records of version 1 are read as they are, without one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, JsonValue, ValidationError, field_validator

from harness.errors import UsageError
from harness.files import atomic_write_text, canonical_json, read_regular, sha256
from harness.records.cell_files import ITEMS as ITEMS
from harness.records.cell_files import LOG as LOG
from harness.records.cell_files import MAX_BYTES as MAX_BYTES
from harness.records.cell_files import RECORD as RECORD
from harness.records.cell_files import CellFiles
from harness.records.items import Item, write_items
from harness.records.provenance import Provenance
from harness.records.redact import redact, redact_tree
from harness.records.sections import (
    Costs,
    CostToRecover,
    Fidelity,
    Flag,
    Interval,
    ModelInfo,
    Point,
    Score,
    Status,
    TaskInfo,
    Utilities,
)
from harness.records.strict_json import loads
from harness.search.curve import Searches
from harness.settings import Settings
from harness.text import visible

SCHEMA_VERSION: Literal[2] = 2
READABLE = (1, 2)
_NO_NAN = json.JSONEncoder(allow_nan=False)
SCHEMA_FILE = Path(__file__).with_name("record.schema.json")


class Record(Settings):
    """One cell."""

    schema_version: Literal[1, 2] = SCHEMA_VERSION
    """Version of this document's shape."""
    id: str = Field(pattern=r"^[0-9a-f]{16,64}$")
    """Hash of the whole resolved spec; the cell's folder has this name."""
    status: Status
    """How the cell ended."""
    status_reason: str | None = None
    """Why it did not end complete."""
    spec: dict[str, JsonValue]
    """The whole resolved spec; at least model, defense, attack, task, seed, budget."""
    model: ModelInfo
    """The model that was locked and attacked."""
    fidelity: Fidelity = Fidelity(reason="not measured")
    """Locked against base."""
    utility: Utilities = Utilities()
    """What the models still do."""
    task: TaskInfo
    """What the attacker wants."""
    score: Score = Score()
    """Task scores."""
    gain: Interval = Interval(reason="no attacked model")
    """attacked - locked."""
    reference_gain: Interval = Interval(reason="no reference")
    """reference - base."""
    recovery: Interval = Interval(reason="no attacked model")
    """(attacked - base) / (reference - base): 0, the lock held; 1, it did nothing."""
    cost: Costs = Costs()
    """Bills."""
    cost_to_recover: dict[str, CostToRecover] = Field(default_factory=dict)
    """By recovery threshold, "0.5" and "0.9"."""
    layer_errors: dict[str, float] = Field(default_factory=dict)
    """Held-out error of each layer that the lock distilled, relative to the layer's output; empty: none, or unknown."""
    secret_guess: dict[str, float] = Field(default_factory=dict)
    """How close the attacker's guess of the lock's secret came, by measure (first attack seed); empty: no guess."""
    trajectory: list[Point] = Field(default_factory=list)
    """The attack's first seed, from the untouched locked model on."""
    reference_trajectory: list[Point] = Field(default_factory=list)
    """The reference's first seed, from the untouched base on."""
    search: Searches | None = None
    """The attacker's searches, trial by trial; null where the spec asks for none."""
    validity: list[Flag] = Field(default_factory=list)
    """What the validity checks found."""
    provenance: Provenance = Provenance()
    """Where the numbers come from."""
    seal: str | None = None
    """sha256 over the canonical JSON of all other keys, filled in when it is written; none in version 1."""

    @field_validator("spec")
    @classmethod
    def _strict(cls, spec: dict[str, JsonValue]) -> dict[str, JsonValue]:
        missing = {"model", "defense", "attack", "task", "seed", "budget"} - set(spec)
        if missing:
            raise ValueError(f"the spec lacks {', '.join(sorted(missing))}")
        for part in ("model", "defense", "attack", "task"):
            chosen = spec[part]
            if not isinstance(chosen.get("name") if isinstance(chosen, dict) else chosen, str):
                raise ValueError(f"the spec's {part} has no name")
        _NO_NAN.encode(spec)  # pydantic lets NaN through inside free-form JSON
        return spec

    def name(self, part: Literal["model", "defense", "attack", "task"]) -> str:
        """Name of the chosen plug-in or model."""
        chosen = self.spec[part]
        return str(chosen["name"] if isinstance(chosen, dict) else chosen)

    @property
    def errors(self) -> list[Flag]:
        """Findings that keep the cell out of leaderboards."""
        return [flag for flag in self.validity if flag.severity == "error"]


def write_record(folder: Path, record: Record, items: Iterable[Item], log: str) -> Record:
    """Write the three files of a cell, the record last; returns the record as written.

    Raises:
        ValueError: items that `harness.records.items.check_items` refuses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)  # an old record must not vouch for new items
    write_items(folder / ITEMS, items)
    atomic_write_text(folder / LOG, redact(log))
    files = {name: sha256(folder / name) for name in (ITEMS, LOG)}
    provenance = record.provenance.model_copy(update={"files": files})
    record = sealed(record.model_copy(update={"provenance": provenance, "schema_version": SCHEMA_VERSION}))
    atomic_write_text(folder / RECORD, dumps(record))
    return record


def sealed(record: Record) -> Record:
    """The record as it is written: without secrets, and with its seal."""
    typed = ("spec", "model")  # here a path is what the user typed, and part of what the id is the hash of
    clean = Record.model_validate({key: redact_tree(value, paths=key not in typed)
                                   for key, value in record.model_dump(mode="json").items()})  # fmt: skip
    return clean.model_copy(update={"seal": seal_of(clean.model_dump(mode="json"))})


def seal_of(document: Mapping[str, Any]) -> str:
    """sha256 over the canonical JSON of a record as parsed JSON, its seal left out."""
    return hashlib.sha256(canonical_json({k: v for k, v in document.items() if k != "seal"}).encode()).hexdigest()


def read_record(folder: Path) -> Record | None:
    """The record in `folder`; None if there is none, or if any of its files is missing, cut short or altered.

    Raises:
        UsageError: a whole document that is not a record of a schema version that is read here.
    """
    try:
        document = read_document(folder)
    except (OSError, ValueError):  # absent, cut short, or not JSON
        return None
    record = parse_record(document, folder.name)
    return None if faults(folder, document, record) else record


def read_document(folder: Path) -> Any:
    """The JSON in `folder`, unchecked.

    Raises:
        OSError: there is none.
        ValueError: it is not strict JSON, not a file of its own, or too large; says which.
    """
    return loads(read_regular(folder / RECORD, MAX_BYTES))


def faults(
    folder: Path, document: Mapping[str, Any], record: Record, read: Callable[[str], bytes] | None = None
) -> list[str]:
    """What is not as it was when the record was written, a line each: the record itself, or a file beside it.

    Args:
        folder: the cell's.
        document: from `read_document`.
        record: from `parse_record` of it.
        read: gives the bytes of a file of the cell by name; default: of `CellFiles`.
    """
    read = read or CellFiles(folder).read
    found = []
    if record.seal is not None and record.seal != seal_of(document):
        found.append("the seal does not fit: the record was changed after it was written")
    files = record.provenance.files
    if set(files) != {ITEMS, LOG}:
        found.append(f"it names the files {sorted(files)}, not {ITEMS} and {LOG}")
    for name in sorted(set(files) & {ITEMS, LOG}):
        try:
            same = hashlib.sha256(read(name)).hexdigest() == files[name]
        except (OSError, ValueError) as error:
            found.append(str(error) if isinstance(error, ValueError) else f"{name} cannot be read: {error.strerror}")
            continue
        found += [] if same else [f"{name} has another sha256 than the record says"]
    return found


def finished(cell: str, spec: Mapping[str, Any], out: Path, *, complete: bool = True) -> Record | None:
    """The record of a cell, if there is a complete one (or, unless `complete`, any).

    Raises:
        UsageError: it is of another spec.
    """
    record = read_record(out / "cells" / cell)
    if record is None or (complete and record.status != "complete"):
        return None
    if canonical_json(record.spec) != canonical_json(spec):
        raise UsageError(f"cell {cell} in {out} was made from another spec with the same id; use another folder")
    return record


def parse_record(raw: Any, where: str, data: bytes | None = None) -> Record:
    """A record from parsed JSON.

    Args:
        raw: from `harness.records.strict_json.loads`.
        where: what to call the cell in messages.
        data: what `raw` was read from: then `quick_record` makes the record, which is faster.

    Raises:
        UsageError: another schema version, or not a record; one line.
    """
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if type(version) is not int or version not in READABLE:
        raise UsageError(f"cell {where!r} holds a record of schema version {version!r:.40}; this lockbench reads "
                         f"{' and '.join(map(str, READABLE))}: choose another output folder")  # fmt: skip
    if (raw.get("seal") is not None) != (version >= 2):
        wrong = "has no seal" if version >= 2 else "has a seal, which that version did not have"
        raise UsageError(f"cell {where!r} holds an invalid record: of schema version {version}, it {wrong}")
    try:
        return (data and quick_record(data)) or Record.model_validate(raw, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"cell {where!r} holds an invalid record: {visible(key[:200])}: {first['msg']}") from None


def quick_record(data: bytes) -> Record | None:
    """The record in JSON that `strict_json.loads` and `parse_record` accept; None where only they can tell.

    Alone it is not strict: a key given twice passes.
    """
    try:
        return Record.model_validate_json(data, strict=True)
    except ValidationError:
        return None


def dumps(record: Record) -> str:
    """The record as strict, indented JSON. No newline at the end: then every shorter prefix is not JSON."""
    return json.dumps(record.model_dump(mode="json"), indent=1, allow_nan=False, ensure_ascii=False)


def schema() -> str:
    """The JSON Schema of a record, as shipped in `harness/records/record.schema.json`."""
    return json.dumps(Record.model_json_schema(), indent=1, sort_keys=True) + "\n"
