"""One cell, from spec to record: base, lock, attack and reference, then the numbers. Ends in a recorded outcome."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import probes
from harness.errors import Outcome, UsageError, without_frames
from harness.files import cannot_write, confined
from harness.plugins import Released
from harness.records import provenance
from harness.records.draft import Draft, Known
from harness.records.items import Item, Side
from harness.records.record import Record
from harness.records.record_files import finished
from harness.records.sections import Fidelity, Status
from harness.search.attacker import search
from harness.spec import Spec
from harness.threads import threads_for

if TYPE_CHECKING:
    from harness.utility import UtilityScores
    from harness.workshop import Lock, Run, Workshop


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
        draft.ended = without_frames(outcome)
    except KeyboardInterrupt:
        draft.write(folder, "interrupted", "interrupted from outside")
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
    if status != "complete":
        gc.collect()  # what failed in mid-training left a model behind, in frames that refer to each other
    record = draft.write(folder, status, reason)
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
    return draft.write(folder, "failed", reason)


def _fill(draft: Draft, workshop: Workshop) -> None:
    spec = draft.spec
    if workshop.ahead is not None and (spec.device == "cpu" or not probes.gpu_files()):
        workshop.ahead.start()  # before torch is imported here, which a worker does meanwhile
    draft.device = provenance.accelerator(workshop.device(spec))
    lock, control = _compared(draft, workshop)
    secret = workshop.secret(lock)
    models: dict[Side, Callable[[], Released]] = {"reference": lambda: workshop.unlocked(spec, control),
                                                  "attacked": lambda: workshop.locked(spec, lock)}  # fmt: skip
    _attacks(draft, workshop, "reference", models, None)  # first: other cells share it
    _attacks(draft, workshop, "attacked", models, secret)


def _compared(draft: Draft, workshop: Workshop) -> tuple[Lock, Lock | None]:
    """Make and score what is not attacked. Neither model outlives this: the attacks have the memory to themselves."""
    spec, device = draft.spec, workshop.device(draft.spec)
    ahead = workshop.ahead if device == "cpu" else None
    model, pretrains = workshop.base(spec), spec.build_defense().pretrains
    draft.control = control = workshop.lock(spec, model, control=True) if pretrains else None
    base = workshop.unlocked(spec, control) if control else model
    draft.base = Known.of(base)
    draft.parameters = (base.model.num_parameters(), None)
    if ahead is not None and threads_for(base.model.num_parameters()) == 1:
        ahead.start()
        ahead.take(spec)
        workshop.lock(spec, model)  # first: everything but the references waits for it
    _untouched(draft, workshop, base, "base")
    draft.lock = lock = workshop.lock(spec, model)
    locked = workshop.locked(spec, lock)
    draft.locked = Known.of(locked)
    draft.parameters = (base.model.num_parameters(), locked.model.num_parameters())
    _untouched(draft, workshop, locked, "locked")
    draft.fidelity = _fidelity(workshop, spec, base, locked)
    return lock, control


def _attacks(draft: Draft, workshop: Workshop, role: Side, models: Mapping[Side, Callable[[], Released]],
             secret: Path | None) -> None:  # fmt: skip
    spec, task, fresh = draft.spec, draft.task, models[role]
    found = search(workshop, spec, task, fresh, models["reference"], role, secret)
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
