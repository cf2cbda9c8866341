"""One cell, from spec to record: base, lock, attack and reference, then the numbers. Ends in a recorded outcome."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import probes
from harness.bill import total
from harness.errors import Outcome, UsageError
from harness.files import cannot_write, confined
from harness.numbers import scoring, validity
from harness.plugins import Released, Task
from harness.records import provenance
from harness.records.items import Item, Side
from harness.records.record import Record, finished, write_record
from harness.records.sections import Costs, Fidelity, ModelInfo, Point, Status, TaskInfo
from harness.search.attacker import search
from harness.search.curve import SearchCurve, Searches
from harness.spec import Spec
from harness.threads import threads_for

if TYPE_CHECKING:
    from harness.utility import UtilityScores
    from harness.workshop import Lock, Run, Workshop


@dataclass
class Draft:
    """What is known so far; a cell that ends early is recorded with what it has."""

    spec: Spec
    task: Task
    started: str
    base: Released | None = None
    locked: Released | None = None
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


def run_cell(spec: Spec, *, out: Path, workshop: Workshop, contained: bool = False) -> Record:
    """Run the cell, or find it finished; write its record under `out/cells/<id>/`.

    Everything that can go wrong after the spec is resolved ends in a record with a status of its own; a user's mistake
    that only shows now (a broken checkpoint) is still raised, and so is a full disk, which says nothing of the cell.

    Args:
        spec: the cell.
        out: the output folder.
        workshop: does the work.
        contained: a user's mistake that only shows now fails this cell, as one of many, and is not raised.

    Raises:
        UsageError: bad input, or a finished record of this id with another spec.
        OSError: the disk is full; what was finished before is in the cache.
    """
    folder = confined(out, "cells", spec.id)
    done = finished(spec.id, spec.model_dump(mode="json"), out, complete=False)
    if done is not None and done.status == "complete":
        workshop.progress.note(f"{spec.title()}: found complete ({spec.id})")
        return done
    draft = Draft(spec=spec, task=spec.build_task(workshop.data_dir), started=provenance.utc_now())
    status: Status = "complete"
    reason = None
    try:
        _fill(draft, workshop)
    except Outcome as outcome:
        status, reason = outcome.status, str(outcome)  # type: ignore[assignment]
        draft.ended = outcome
    except KeyboardInterrupt:
        _write(draft, folder, "interrupted", "interrupted from outside")
        raise
    except UsageError as error:
        if not contained:
            raise
        status, reason = "failed", " ".join(str(error).split())
    except Exception as error:  # a plug-in may fail in any way; the cell says so and the matrix goes on
        if isinstance(error, OSError) and cannot_write(error):
            raise
        status, reason = "failed", f"{type(error).__name__}: {' '.join(str(error).split())}"
        draft.log.append(traceback.format_exc())
    record = _write(draft, folder, status, reason)
    workshop.reporting.record(record, spec)
    return record


def give_up(spec: Spec, reason: str, *, out: Path, data_dir: Path | None, log: str = "") -> Record:
    """Record a cell as failed, for a reason from outside it: its process died or hung, or what it needs failed.

    The caller holds the cell's claim. A complete record stays as it is.
    """
    folder = confined(out, "cells", spec.id)
    done = finished(spec.id, spec.model_dump(mode="json"), out)
    if done is not None:
        return done
    draft = Draft(spec=spec, task=spec.build_task(data_dir), started=provenance.utc_now(), log=[log] if log else [])
    return _write(draft, folder, "failed", reason)


def _fill(draft: Draft, workshop: Workshop) -> None:
    spec = draft.spec
    if workshop.ahead is not None and (spec.device == "cpu" or not probes.gpu_files()):
        workshop.ahead.start()  # before torch is imported here, which a worker does meanwhile
    ahead = workshop.ahead if workshop.device(spec) == "cpu" else None
    model, pretrains = workshop.base(spec), spec.build_defense().pretrains
    draft.control = control = workshop.lock(spec, model, control=True) if pretrains else None
    draft.base = base = workshop.unlocked(spec, control) if control else model
    draft.parameters = (base.model.num_parameters(), None)
    if ahead is not None and threads_for(base.model.num_parameters()) == 1:
        ahead.start()
        ahead.take(spec)
        workshop.lock(spec, model)  # first: everything but the references waits for it
    _untouched(draft, workshop, base, "base")
    draft.lock = lock = workshop.lock(spec, model)
    draft.locked = locked = workshop.locked(spec, lock)
    draft.parameters = (base.model.num_parameters(), locked.model.num_parameters())
    _untouched(draft, workshop, locked, "locked")
    draft.fidelity = _fidelity(workshop, spec, base, locked)
    secret = workshop.secret(lock)
    _attacks(draft, workshop, "reference", lambda: workshop.unlocked(spec, control), None)  # other cells share it
    _attacks(draft, workshop, "attacked", lambda: workshop.locked(spec, lock), secret)


def _attacks(draft: Draft, workshop: Workshop, role: Side, fresh: Callable[[], Released], secret: Path | None) -> None:
    spec, task = draft.spec, draft.task
    found = search(workshop, spec, task, fresh, role, secret)
    draft.searches[role] = found
    for replicate in range(spec.replicates):
        run = workshop.run(spec, task, fresh(), role, replicate, secret, found)
        if role == "attacked":
            _take(draft, draft.attacked, run, role)
        else:
            _take(draft, draft.reference, run, None)


def _untouched(draft: Draft, workshop: Workshop, released: Released, side: Any) -> None:
    items = workshop.scores(draft.spec, draft.task, released, side)
    utility = workshop.utility(draft.spec, released)
    draft.items += items + _utility_items(utility, side, None)
    draft.chances |= {name: found.chance for name, found in utility.tasks.items()}


def _take(draft: Draft, runs: list[Run], run: Run, utility_side: Any) -> None:
    runs.append(run)
    draft.items += run.items
    if utility_side and run.utility is not None:
        draft.items += _utility_items(run.utility, utility_side, run.seed)


def _utility_items(utility: UtilityScores, side: Any, seed: int | None) -> list[Item]:
    from harness.workshop import as_item

    return [as_item(item, side, seed) for item in utility.items]


def _fidelity(workshop: Workshop, spec: Spec, base: Released, locked: Released) -> Fidelity:
    if base.digest == locked.digest:
        return Fidelity(reason="the locked model is the base (equal weight digests): a comparison would say nothing")
    found = workshop.fidelity(spec, base, locked)
    return Fidelity(kl=found["kl"], top1_agreement=found["top1_agreement"], dtype=found["dtype"],
                    tokens=found["n_tokens"])  # fmt: skip


def _write(draft: Draft, folder: Path, status: Status, reason: str | None) -> Record:
    spec, task = draft.spec, draft.task
    numbers = scoring.task_numbers(draft.items, task.metric, task.unit)
    utility = scoring.utilities(draft.items, draft.chances)
    trajectory, reference = (_trajectory(runs) for runs in (draft.attacked, draft.reference))
    weights = provenance.Weights(
        base=draft.base.digest if draft.base else None, locked=draft.locked.digest if draft.locked else None,
        attacked=[run.digest for run in draft.attacked], reference=[run.digest for run in draft.reference])  # fmt: skip
    flags = validity.check(
        attacked=_summaries(draft, draft.attacked, 1), reference=_summaries(draft, draft.reference, 0),
        weights=weights, defense=spec.defense["name"], utility=utility, gain=numbers.gain,
        searches=draft.searches)  # fmt: skip
    threads = threads_for(draft.parameters[0]) if draft.parameters[0] else None
    source = provenance.collect(
        started=draft.started, finished=provenance.utc_now(), data={spec.task["name"]: task.digest()}, weights=weights,
        seeds={side: [run.seed for run in runs] for side, runs in _sides(draft)},
        knowledge=spec.build_attack().knowledge.value,
        targets=draft.attacked[0].targets if draft.attacked else [], threads=threads)  # fmt: skip
    record = Record(
        id=spec.id, status=status, status_reason=reason, spec=spec.model_dump(mode="json"), model=_model(draft),
        fidelity=draft.fidelity, utility=utility, task=_task_info(spec, task), score=numbers.score, gain=numbers.gain,
        reference_gain=numbers.reference_gain, recovery=numbers.recovery, cost=_costs(draft),
        layer_errors=layer_errors(draft.lock.report) if draft.lock else {},
        secret_guess=draft.attacked[0].secret_guess if draft.attacked else {},
        cost_to_recover=scoring.costs_to_recover(trajectory, reference) if trajectory else {}, trajectory=trajectory,
        reference_trajectory=reference, search=Searches(**draft.searches) if spec.search.trials else None,
        validity=flags, provenance=source)  # fmt: skip
    return write_record(folder, record, draft.items, _log(draft, record))


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
    family = type(draft.base.model).__name__ if draft.base else None
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
