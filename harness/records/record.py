"""The record: the JSON document that one finished cell leaves (design.md §5). Imports neither torch nor numpy.

Numbers are numbers; what is missing is null with a reason; there is no NaN. How it lies on a disk, and what its seal is
for, is in `record_files`.

Version 2 is version 1 with a seal. Records of version 1 are read as they are, without one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, JsonValue, ValidationError, field_validator

from harness.errors import UsageError
from harness.records.provenance import Provenance
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
