"""What is known of a cell so far, and the record that becomes of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.bill import total
from harness.errors import Outcome
from harness.numbers import scoring, validity
from harness.plugins import Released, Task
from harness.records import provenance
from harness.records.items import Item
from harness.records.record import Record
from harness.records.record_files import write_record
from harness.records.sections import Costs, Fidelity, ModelInfo, Point, Status, TaskInfo
from harness.search.curve import SearchCurve, Searches
from harness.spec import Spec
from harness.threads import threads_for

if TYPE_CHECKING:
    from harness.workshop import Lock, Run


@dataclass(frozen=True)
class Known:
    """What a record says of a model, without the model."""

    digest: str
    name: str
    family: str
    """Name of its class."""

    @classmethod
    def of(cls, released: Released) -> Known:
        """Of a model in memory."""
        return cls(released.digest, released.name, type(released.model).__name__)


@dataclass
class Draft:
    """What is known so far; a cell that ends early is recorded with what it has."""

    spec: Spec
    task: Task
    started: str
    device: str | None = None
    """Name of the accelerator."""
    base: Known | None = None
    locked: Known | None = None
    lock: Lock | None = None
    control: Lock | None = None
    parameters: tuple[int | None, int | None] = (None, None)
    fidelity: Fidelity = field(default_factory=lambda: Fidelity(reason="not measured"))
    items: list[Item] = field(default_factory=list)
    chances: dict[str, float | None] = field(default_factory=dict)
    attacked: list[Run] = field(default_factory=list)
    reference: list[Run] = field(default_factory=list)
    searches: dict[str, SearchCurve | None] = field(default_factory=dict)
    ended: Outcome | None = None
    log: list[str] = field(default_factory=list)

    def write(self, folder: Path, status: Status, reason: str | None) -> Record:
        """Compute every figure, and write the record with what is known."""
        spec, task = self.spec, self.task
        numbers = scoring.task_numbers(self.items, task.metric, task.unit)
        utility = scoring.utilities(self.items, self.chances)
        trajectory, reference = (_trajectory(runs) for runs in (self.attacked, self.reference))
        weights = provenance.Weights(
            base=self.base.digest if self.base else None, locked=self.locked.digest if self.locked else None,
            attacked=[run.digest for run in self.attacked],
            reference=[run.digest for run in self.reference])  # fmt: skip
        flags = validity.check(
            attacked=_summaries(self, self.attacked, 1), reference=_summaries(self, self.reference, 0),
            weights=weights, defense=spec.defense["name"], utility=utility, gain=numbers.gain,
            searches=self.searches)  # fmt: skip
        threads = threads_for(self.parameters[0]) if self.parameters[0] else None
        source = provenance.collect(
            started=self.started, finished=provenance.utc_now(), data={spec.task["name"]: task.digest()},
            weights=weights, seeds={side: [run.seed for run in runs] for side, runs in _sides(self)},
            knowledge=spec.build_attack().knowledge.value,
            targets=self.attacked[0].targets if self.attacked else [], threads=threads, device=self.device)  # fmt: skip
        record = Record(
            id=spec.id, status=status, status_reason=reason, spec=spec.model_dump(mode="json"), model=_model(self),
            fidelity=self.fidelity, utility=utility, task=_task_info(spec, task), score=numbers.score,
            gain=numbers.gain, reference_gain=numbers.reference_gain, recovery=numbers.recovery, cost=_costs(self),
            layer_errors=layer_errors(self.lock.report) if self.lock else {},
            secret_guess=self.attacked[0].secret_guess if self.attacked else {},
            cost_to_recover=scoring.costs_to_recover(trajectory, reference) if trajectory else {},
            trajectory=trajectory, reference_trajectory=reference,
            search=Searches(**self.searches) if spec.search.trials else None, validity=flags,
            provenance=source)  # fmt: skip
        return write_record(folder, record, self.items, _log(self, record))


def layer_errors(report: Mapping[str, Any]) -> dict[str, float]:
    """What a lock's report says under `layer_errors`, in the parts of a composition too (as `part: layer`)."""
    own = report.get("layer_errors")
    found = {str(name): float(value) for name, value in (own.items() if isinstance(own, Mapping) else ())
             if isinstance(value, (int, float)) and math.isfinite(value)}  # fmt: skip
    for part, inner in report.items():
        if part != "layer_errors" and isinstance(inner, Mapping):
            found |= {f"{part}: {name}": value for name, value in layer_errors(inner).items()}
    return found


def _sides(draft: Draft) -> list[tuple[str, list[Run]]]:
    return [("attacked", draft.attacked), ("reference", draft.reference)]


def _task_info(spec: Spec, task: Task) -> TaskInfo:
    return TaskInfo(name=spec.task["name"], metric=task.metric, unit=task.unit, chance=task.chance,
                    digest=task.digest())  # fmt: skip


def _model(draft: Draft) -> ModelInfo:
    name, (parameters, locked) = draft.spec.model.name, draft.parameters
    family = draft.base.family if draft.base else None
    control = draft.base.name if draft.base and draft.control else None
    return ModelInfo(name=name, parameters=parameters, locked_parameters=locked, dtype=draft.spec.model.dtype,
                     family=family, control=control)  # fmt: skip


def _trajectory(runs: list[Run]) -> list[Point]:
    return [Point(**point) for point in runs[0].trajectory] if runs else []


def _costs(draft: Draft) -> Costs:
    runs = {role: dict(runs[0].bills) for role, runs in _sides(draft) if runs}
    if draft.ended is not None and draft.ended.role is not None:  # what was spent before it ended is still a cost
        runs.setdefault(draft.ended.role, dict(draft.ended.bills))
    first = runs.get("attacked", {})
    reference = total(runs["reference"].values()) if runs.get("reference") else None
    unbilled = draft.spec.build_defense().unbilled
    lock = draft.lock.bill if draft.lock and draft.spec.defense["name"] != "none" and not unbilled else None
    control = draft.control.bill if draft.control else None
    return Costs(lock=lock, lock_reason=unbilled, control=control, reference=reference,
                 **{stage: first.get(stage) for stage in ("undo", "search", "attack")})  # fmt: skip


def _summaries(draft: Draft, runs: list[Run], side: int) -> list[validity.RunSummary]:
    return [validity.RunSummary.of(run.training, trainable_parameters=run.bills["attack"].trainable_parameters,
                                   targets=run.targets,
                                   parameters=draft.parameters[side],
                                   trajectory=[Point(**point) for point in run.trajectory])
            for run in runs]  # fmt: skip


def _log(draft: Draft, record: Record) -> str:
    lines = [f"{record.provenance.started} {draft.spec.title()} ({record.id})"]
    for side, runs in _sides(draft):
        for run in runs:
            losses = run.training["losses"]
            lines.append(f"{side} seed {run.seed}: {len(losses)} steps, loss {losses[0]:.4f} -> {losses[-1]:.4f}, "
                         f"stopped by {run.training['stopped_by']}, report {run.report}")  # fmt: skip
    if draft.control:
        lines.append(f"control report: {draft.control.report}")
    if draft.lock:
        lines.append(f"lock report: {draft.lock.report}")
    lines += [*draft.log, f"{record.provenance.finished} {record.status} {record.status_reason or ''}"]
    return "\n".join(lines) + "\n"
