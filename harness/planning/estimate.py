"""What a plan will cost, from the bills of earlier records. Scoring and the start of processes come on top.

A job's precedent is a record of the same settings; else one of the same model and plug-in names; else there is none,
and the plan says so instead of guessing. No bill says what scoring takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from harness.bill import Bill, total
from harness.files import canonical_json
from harness.planning.plan import Job
from harness.records.cell_files import RECORD
from harness.records.record import Record, parse_record

_PARTS = {"lock": ("model", "defense"), "control": ("model", "defense"),
          "reference": ("model", "attack", "task", "budget", "search"),
          "cell": ("model", "defense", "attack", "task", "budget", "search")}  # fmt: skip
_NAMES = {"lock": ("model", "defense"), "control": ("model", "defense"), "reference": ("model", "attack"),
          "cell": ("model", "attack")}  # fmt: skip


class Precedents:
    """Seconds and FLOPs by what was done."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._seen: dict[str, list[Bill]] = {}
        for record in records:
            for kind, bill in _bills(record):
                for key in _keys(kind, record.spec):
                    self._seen.setdefault(key, []).append(bill)

    def of(self, job: Job) -> Bill | None:
        """The bill to expect for a job; None where there is no precedent, empty for one that trains nothing."""
        if job.kind != "cell":
            return self._of(job.kind, job.spec) if job.kind in _PARTS else Bill()
        runs, ready = int(job.spec["replicates"]), {name.partition("-")[0] for name in job.needs}
        parts = [self._of("cell", job.spec)] * runs
        if "reference" not in ready:  # what no other cell shares, the cell makes itself
            parts += [self._of("reference", job.spec)] * runs
        if "lock" not in ready and job.spec["defense"]["name"] != "none":
            parts.append(self._of("lock", job.spec))
        return None if any(part is None for part in parts) else total(part for part in parts if part is not None)

    def _of(self, kind: str, spec: Mapping[str, Any]) -> Bill | None:
        if kind == "lock" and spec["defense"]["name"] == "none":
            return Bill()
        for key in _keys(kind, spec):
            if bills := self._seen.get(key):
                return Bill(seconds=median(bill.seconds for bill in bills),
                            forward_flops=median(bill.flops for bill in bills))  # fmt: skip
        return None


def estimated(jobs: Iterable[Job], out: Path) -> tuple[list[Job], Bill, int]:
    """The jobs with their expected seconds, the expected bill of all, and how many have no precedent in `out`."""
    precedents = Precedents(earlier(out))
    bills = [(job, precedents.of(job)) for job in jobs]
    known = [job.model_copy(update={"seconds": bill.seconds if bill and job.kind in _PARTS else None})
             for job, bill in bills]  # fmt: skip
    return known, total(bill for _, bill in bills if bill), sum(bill is None for _, bill in bills)


def earlier(out: Path, most: int = 1000) -> Iterator[Record]:
    """At most so many records of an output folder, whatever their state; what cannot be read is passed over."""
    import json

    from harness.errors import UsageError

    for path in sorted(out.glob(f"cells/*/{RECORD}"))[:most]:
        try:
            yield parse_record(json.loads(path.read_bytes()), path.parent.name)
        except (OSError, ValueError, UsageError):
            continue


def _bills(record: Record) -> Iterator[tuple[str, Bill]]:
    cost = record.cost
    for kind, bill in (("lock", cost.lock), ("control", cost.control), ("reference", cost.reference)):
        if bill is not None:
            yield kind, bill
    attack = [bill for bill in (cost.undo, cost.search, cost.attack) if bill is not None]
    if attack:
        yield "cell", total(attack)


def _keys(kind: str, spec: Mapping[str, Any]) -> tuple[str, str]:
    """By all its settings, and by names alone."""
    names = {part: spec[part]["name"] for part in _NAMES[kind]}
    settings = {part: spec.get(part) for part in _PARTS[kind]}
    return f"{kind} {canonical_json(settings)}", f"{kind} names {canonical_json(names)}"
