"""The attacker's search as a piece of a cell: done once for a model, an attack and a budget, and found again."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from harness import probes
from harness.errors import Unavailable
from harness.numbers.validity import RunSummary, run_flags
from harness.search.curve import SearchCurve, curve
from harness.search.kept import Keeper
from harness.search.run import Attempt, run_trials
from harness.search.study import JOURNAL, Dead, Study
from harness.search.undone import Undone
from harness.seeds import derive

if TYPE_CHECKING:
    from harness.meters.meter import Meter
    from harness.plugins import Released, Task
    from harness.records.items import Side
    from harness.spec import Spec
    from harness.workshop import Workshop

_FOUND = "search.json"


def search(workshop: Workshop, spec: Spec, task: Task, fresh: Callable[[], Released], base: Callable[[], Released],
           role: Side, secret: Path | None = None) -> SearchCurve | None:  # fmt: skip
    """The search of `spec` on one model; None where the spec has none. It sees the selection split and no other.

    All trials train with one seed, so that they differ in nothing but their settings; the attack that follows uses
    others. The proposals that are left to chance are the same for `attacked` and `reference`.

    Args:
        workshop: trains, scores and caches.
        spec: what to search, resolved.
        task: the attacker's.
        fresh: gives the model with untouched weights.
        base: gives what the model's utility is held against where `search.keep_utility` is asked for.
        role: `attacked` on the locked model, `reference` on the base.
        secret: see `harness.plugins.AttackContext`.

    Raises:
        Unavailable: Optuna, or what the attack needs, is not installed.
    """
    if not spec.search.trials:
        return None
    if reason := probes.check("optuna"):
        raise Unavailable(f"search.trials={spec.search.trials}: {reason}")
    workshop.require(spec)
    attack, built = spec.attack, spec.build_attack()
    spec = spec.model_copy(update={"attack": built.tried() or attack})
    target, seed = fresh(), derive(spec.seed, role, "search")
    target.model.to(device="cpu")  # it says what is searched; each trial has one of its own on the device
    key = {**workshop.attack_key(spec, task, target, seed), "search": spec.search.model_dump(mode="json"),
           "proposals": derive(spec.seed, "search"), "optuna": version("optuna")}  # fmt: skip
    keeping = spec.search.keep_utility and task.keeps_head  # another head does nothing of its owner's any more
    if keeping:
        key |= {"base": base().digest, "utility": spec.utility.model_dump(mode="json"), "own": spec.own}

    def make(entry: Path, work: Path) -> None:
        workshop.progress.note(f"searching {spec.attack['name']} on {target.name}: {spec.search.trials} trials")
        study = Study(work, spec.search, derive(spec.seed, "search"), spec.attack)
        keeper = Keeper(workshop, spec, base()) if keeping else None
        attempt = _attempt(workshop, spec, task, fresh, seed, secret, work, keeper)
        trials = run_trials(study, spec.search.trials, spec.budget, attempt, workshop.progress.note,
                            workshop.device(spec))  # fmt: skip
        (entry / _FOUND).write_text(curve(trials, spec.attack).model_dump_json(indent=1))
        shutil.copy(work / JOURNAL, entry / JOURNAL)

    folder, _ = workshop.entry("searches", target, key, make)
    found = SearchCurve.model_validate_json((folder / _FOUND).read_text())
    return found.model_copy(update={"attack": curve(found.trials, attack, built.as_given).attack})


def _attempt(workshop: Workshop, spec: Spec, task: Task, fresh: Callable[[], Released], seed: int,
             secret: Path | None, work: Path, keeper: Keeper | None) -> Attempt:  # fmt: skip
    undone = Undone()

    def attempt(params: dict[str, Any], meter: Meter, report: Callable[[float], None]) -> float:
        settings = {**spec.attack, **params}
        if "save_steps" in settings:  # a killed trial starts again, so that each point is reported to its own trial
            settings["save_steps"] = 0
        tuned = spec.model_copy(update={"attack": settings})
        with TemporaryDirectory(dir=work) as folder:
            attacked, after = workshop.fine_tune(tuned, task, fresh(), seed, meter, Path(folder), secret, report,
                                                 undone=undone)  # fmt: skip
        for flag in run_flags(RunSummary.of(dataclasses.asdict(attacked.training)), "trial"):
            if flag.severity == "error":  # what would not count as an attack must not be chosen
                raise Dead(flag.detail)
        score = workshop.selection(spec, task, after)
        if not math.isfinite(score):
            raise Dead(f"the score is {score}")
        if keeper is not None:
            keeper.check(after)
        return score

    return attempt
