"""Attacked runs, done once and cached by content, on the models of `harness.untouched`.

A cell is a handful of these pieces; a matrix shares them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import probes, registry
from harness.bill import Bill
from harness.cache import digest_of
from harness.errors import Outcome, Unavailable
from harness.files import sha256
from harness.loop import ranks
from harness.meters.meter import Meter
from harness.plugins import AttackContext, Attacked, Knowledge, Released, Task
from harness.records.items import Item, Side, read_items, write_items
from harness.search.curve import SearchCurve
from harness.search.undone import Undone
from harness.seeds import derive
from harness.spec import Spec
from harness.stock import Lock, stored_dtype, write_json
from harness.tracking import Log, no_log
from harness.untouched import Untouched, as_item, main_score
from harness.utility import UtilityScores

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROBE_ITEMS = 50
"""Items of the selection split that a point of the trajectory is scored on: scoring costs as much as training here."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One attack on one model with one seed: what it reached and what it cost."""

    seed: int
    digest: str
    items: list[Item]
    bills: dict[str, Bill]
    trajectory: list[dict[str, Any]]
    training: dict[str, Any]
    targets: list[str]
    report: dict[str, Any]
    secret_guess: dict[str, float]
    """How close the attack's guess of the lock's secret came, by measure."""
    utility: UtilityScores | None
    """What the attacked model still does; a reference's is not asked for."""


class Workshop(Untouched):
    """Does and remembers the shared work of cells; one for each process."""

    def run(self, spec: Spec, task: Task, target: Released, role: Side, replicate: int, secret: Path | None = None,
            searched: SearchCurve | None = None) -> Run:  # fmt: skip
        """Attack `target` once: role `attacked` on the locked model, `reference` on the base.

        A search before it (`searched`) has chosen the settings, and its cost is on this attacker's bill.

        Raises:
            Outcome: out of memory, over budget, or unavailable on this machine.
        """
        self.require(spec)
        seed = derive(spec.seed, role, replicate)
        if searched is not None:
            spec = spec.model_copy(update={"attack": searched.attack})
        own = self.own(spec)
        asked = {"utility": spec.utility.model_dump(mode="json")} if own is None else self.own_key(spec, own)
        key = {**self.attack_key(spec, task, target, seed), **asked,
               "secret": sha256(secret) if secret else None,
               **({"search": digest_of(searched)} if searched is not None else {})}  # fmt: skip

        def make(entry: Path, work: Path) -> None:
            self.progress.note(f"{spec.attack['name']} on {target.name} ({role}, replicate {replicate + 1})")
            spent = {"search": searched.bill} if searched is not None else None
            meter = Meter(spec.budget, device=self.device(spec), spent=spent)
            with self.reporting.run(f"{spec.id}-{role}-{replicate + 1}", spec) as log:
                self._attack(spec, task, target, role, seed, secret, meter, entry, work, log)

        folder, _ = self.entry("runs", target, key, make)
        saved = json.loads((folder / "run.json").read_text())
        saved["bills"] = {stage: Bill(**bill) for stage, bill in saved["bills"].items()}
        saved["utility"] = saved["utility"] and UtilityScores.model_validate(saved["utility"])
        return Run(items=read_items(folder / "items.parquet"), **saved)

    def attack_key(self, spec: Spec, task: Task, target: Released, seed: int) -> dict[str, Any]:
        """What an attack's outcome depends on."""
        return {"model": target.digest, "attack": spec.attack, "task": spec.task, "data": task.digest(), "seed": seed,
                "budget": spec.budget.model_dump(mode="json"), "bf16": self.bf16(spec, target.model),
                "dtype": spec.model.dtype, "device": self.device(spec)}  # fmt: skip

    def require(self, spec: Spec) -> None:
        """See that this machine has what the attack needs.

        Raises:
            Unavailable: it does not; the reason names what is missing.
        """
        for requirement in registry.attacks().get(spec.attack["name"]).requires:
            if reason := probes.check(requirement):
                raise Unavailable(reason)

    def fine_tune(
        self, spec: Spec, task: Task, target: Released, seed: int, meter: Meter, folder: Path, secret: Path | None,
        report: Callable[[float], None] = lambda score: None, log: Log = no_log, undone: Undone | None = None,
    ) -> tuple[Attacked, Released]:  # fmt: skip
        """Attack `target` on `meter`, and give the attacked model in the target's place; nothing is scored after.

        `report` is told the selection score at each point of the trajectory; what it raises ends the attack. `log` is
        given the curves. `undone` is shared by the trials of a search.
        """
        from harness.meters.device_memory import device_memory
        from harness.meters.memory import real_out_of_memory
        from harness.models.digest import weights_digest

        def score_of(model: PreTrainedModel) -> float:
            seen = dataclasses.replace(target, model=model)
            return main_score(task, self._score(spec, task, seen, "selection", limit=PROBE_ITEMS))

        first = True

        def probe(model: PreTrainedModel) -> float:
            nonlocal first
            untrained = first and model is target.model and weights_digest(model) == target.digest
            first = False
            score = self.start(spec, task, target, score_of) if untrained else score_of(model)
            report(score)
            return score

        attack, target = spec.build_attack(), task.adapt(target)
        shown = secret if attack.knowledge is Knowledge.SECRET else None
        context = AttackContext(seed=seed, device=self.device(spec), folder=folder, meter=meter,
                                data_dir=self.data_dir, bf16=self.bf16(spec, target.model), progress=self.progress,
                                task=task, secret=shown, probe=probe, log=log, undone=undone)  # fmt: skip
        if attack.distributed and ranks.size() > 1:
            ranks.call(spec, target, seed, meter, folder, shown, self.data_dir)
        with real_out_of_memory(), device_memory(context, target.model) as memory:
            try:
                attacked = attack.attack(target, dataclasses.replace(context, memory=memory))
            finally:
                _charge_rest(meter, memory.most())
        attacked.model.eval()
        return attacked, dataclasses.replace(target, model=attacked.model, digest=weights_digest(attacked.model),
                                             name=f"{target.name}, attacked")  # fmt: skip

    def start(self, spec: Spec, task: Task, target: Released, score_of: Callable[[PreTrainedModel], float]) -> float:
        """What `score_of` says of an untouched model: the first point of the trajectory of every attack on it."""
        key = {**self.score_key(spec, task, target), "items": PROBE_ITEMS}

        def make(entry: Path, work: Path) -> None:
            write_json(entry / "score.json", score_of(target.model))

        folder, _ = self.entry("starts", target, key, make)
        return float(json.loads((folder / "score.json").read_text()))

    def _attack(self, spec: Spec, task: Task, target: Released, role: Side, seed: int, secret: Path | None,
                meter: Meter, entry: Path, work: Path, log: Log) -> None:  # fmt: skip
        try:
            attacked, after = self.fine_tune(spec, task, target, seed, meter, work, secret, log=log)
        except Outcome as outcome:
            outcome.bills, outcome.role = dict(meter.bills), role
            raise
        scores = self._score(spec, task, after, "test")
        write_items(entry / "items.parquet", [as_item(score, role, seed) for score in scores])
        # A model with a head for other labels does nothing of its owner's any more: there is no utility to ask for.
        utility = self.evaluated(spec, after) if role == "attacked" and task.keeps_head else None
        training = {key: value for key, value in dataclasses.asdict(attacked.training).items() if key != "trajectory"}
        write_json(entry / "run.json", {
            "seed": seed, "digest": after.digest, "targets": list(attacked.targets), "report": attacked.report,
            "secret_guess": _guess_scored(spec, attacked, secret),
            "bills": {stage: bill.model_dump(mode="json") for stage, bill in meter.bills.items()},
            "trajectory": [dataclasses.asdict(point) for point in attacked.training.trajectory],
            "training": training, "utility": utility and utility.model_dump(mode="json"),
        })  # fmt: skip


def _charge_rest(meter: Meter, most: int) -> None:
    """A peak on the device higher than those of the trainings is that of what undid the lock."""
    if most > max((bill.peak_device_bytes or 0 for bill in meter.bills.values()), default=0):
        with meter.stage("undo" if "undo" in meter.bills else "attack"):
            meter.charge(Bill(peak_device_bytes=most))


def _guess_scored(spec: Spec, attacked: Attacked, secret: Path | None) -> dict[str, float]:
    """How good the attacker's guess of the secret is, where there are both; the attack is over by now."""
    if attacked.guess is None or secret is None:
        return {}
    from safetensors.torch import load_file

    return spec.build_defense().compare(attacked.guess, load_file(secret))


__all__ = ["Lock", "Run", "Workshop", "as_item", "main_score", "stored_dtype"]
