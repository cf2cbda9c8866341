"""Shared work, done once and cached by content: bases, locks, utilities, untouched scores, attacked runs.

A cell is a handful of these; a matrix shares them. Each result is an entry of `harness.cache`, so a killed run finds
again whatever was finished, and two processes do not do the same work twice.
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
from harness.cache import Cache, digest_of
from harness.errors import Outcome, Unavailable, UsageError
from harness.files import sha256
from harness.items import Item, Side, read_items, write_items
from harness.meters.meter import Meter
from harness.plugins import AttackContext, Attacked, ItemScore, Knowledge, LockContext, Released, Split, Task
from harness.progress import Progress
from harness.search.curve import SearchCurve
from harness.seeds import derive
from harness.spec import Spec
from harness.threads import threads_for, torch_threads
from harness.tracking import Log, Reporting, no_log
from harness.utility import UtilityScores, evaluate_utility

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.ahead import Ahead

LOCK_HELDOUT = 16
"""One document in so many is the lock's own validation text."""
BF16_PAYS_FROM = 20_000_000
"""Parameters from which bf16 autocast is faster than fp32 on CPU (below, casts cost more than they save)."""
PROBE_ITEMS = 50
"""Items of the selection split that a point of the trajectory is scored on: scoring costs as much as training here."""


@dataclass(frozen=True, kw_only=True)
class Lock:
    """A locked model in the cache."""

    folder: Path
    digest: str
    bill: Bill
    report: dict[str, Any]
    seconds_saved: bool


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


class Workshop:
    """Does and remembers the shared work of cells; one for each process."""

    def __init__(self, *, cache: Cache, data_dir: Path | None, progress: Progress,
                 reporting: Reporting | None = None) -> None:  # fmt: skip
        self.cache, self.data_dir, self.progress = cache, data_dir, progress
        self.reporting = reporting or Reporting()
        self.ahead: Ahead | None = None
        """Processes that make pieces of a cell beside this one; see `harness.ahead`."""

    # -- models ------------------------------------------------------------------------------------------------------

    def base(self, spec: Spec) -> Released:
        """The unlocked model, fresh weights each time it is asked for (an attack changes them in place)."""
        from harness.models.load import load_model

        choice = spec.model
        return load_model(choice.name, data_dir=self.data_dir, dtype=choice.dtype, device=self.device(spec),
                          trust_remote_code=choice.trust_remote_code, revision=choice.revision,
                          known=registry.models().working())  # fmt: skip

    def lock(self, spec: Spec, base: Released, *, control: bool = False) -> Lock:
        """The locked model's folder: made once for each (base, defense settings, corpus, seed, precision).

        Args:
            spec: says how.
            base: the model as the spec names it.
            control: make the lock's control instead (`Defense.control`).
        """
        from harness.models.save import save_released

        bf16, defense = self.bf16(spec, base.model), spec.build_defense()
        made = {"name": spec.defense["name"], **defense.control_settings()} if control else spec.defense
        key = {"base": base.digest, "defense": made, "corpus": spec.corpus, "seed": spec.seed, "bf16": bf16,
               "device": self.device(spec), "corpus_digest": self._corpus_digest(spec)}  # fmt: skip

        def make(entry: Path, work: Path) -> None:
            done = "training the control of" if control else f"locking {base.name} with"
            self.progress.note(f"{done} {spec.defense['name']}")
            fresh, meter = self.base(spec), Meter()
            context = LockContext(seed=derive(spec.seed, "lock"), device=self.device(spec), folder=work, meter=meter,
                                  data_dir=self.data_dir, bf16=bf16, progress=self.progress,
                                  corpus=lambda split: self._corpus(spec.corpus, split))  # fmt: skip
            called = f"{spec.id}-{'control' if control else 'lock'}"
            with meter.stage("lock"), self.reporting.run(called, spec) as log:
                context = dataclasses.replace(context, log=log)
                locked = defense.control(fresh, context) if control else defense.lock(fresh, context)
            settings = {k: v for k, v in spec.defense.items() if k != "name"}
            lock = None if control else {"defense": spec.defense["name"], "settings": settings}
            digest = save_released(locked.model, fresh.tokenizer, entry / "model",
                                   dtype=locked.dtype or stored_dtype(base), lock=lock, base_name=base.name,
                                   base_digest=base.digest, defense=None if control else defense)  # fmt: skip
            if locked.secret is not None:
                from safetensors.torch import save_file

                save_file(locked.secret, entry / "secret.safetensors")
            _write(entry / "lock.json", {"digest": digest, "bill": meter.bills["lock"].model_dump(mode="json"),
                                         "report": locked.report})  # fmt: skip

        folder, hit = self.entry("controls" if control else "locks", base, key, make)
        saved = json.loads((folder / "lock.json").read_text())
        return Lock(folder=folder, digest=saved["digest"], bill=Bill(**saved["bill"]), report=saved["report"],
                    seconds_saved=hit)  # fmt: skip

    def unlocked(self, spec: Spec, control: Lock | None) -> Released:
        """What the locked model is compared with: the base, or the control (as released) where there is one."""
        if control is None:
            return self.base(spec)
        control_of = f"{spec.model.name}, control of {spec.defense['name']}"
        return dataclasses.replace(self.locked(spec, control), name=control_of)

    def locked(self, spec: Spec, lock: Lock) -> Released:
        """The locked model as released: read back from its folder, at the precision it is stored in."""
        from harness.models.load import load_model

        released = load_model(str(lock.folder / "model"), data_dir=self.data_dir, dtype=spec.model.dtype,
                              device=self.device(spec))  # fmt: skip
        lock_name = spec.defense["name"]
        name = spec.model.name if lock_name == "none" else f"{spec.model.name} locked by {lock_name}"
        return dataclasses.replace(released, name=name, lock=spec.build_defense().disclosed(released.lock))

    def secret(self, lock: Lock) -> Path | None:
        """The lock's secret, where it has one; an attack is shown it only if its knowledge is `secret`."""
        path = lock.folder / "secret.safetensors"
        return path if path.exists() else None

    # -- scores ------------------------------------------------------------------------------------------------------

    def utility(self, spec: Spec, released: Released) -> UtilityScores:
        """What the model still does, by lm-eval and held-out perplexity."""
        key = {"model": released.digest, "utility": spec.utility.model_dump(mode="json"), "dtype": spec.model.dtype}

        def make(entry: Path, work: Path) -> None:
            self.progress.note(f"utility of {released.name}")
            scores = evaluate_utility(released, spec.utility, self.data_dir)
            _write(entry / "utility.json", scores.model_dump(mode="json"))

        folder, _ = self.entry("utility", released, key, make)
        return UtilityScores.model_validate_json((folder / "utility.json").read_text())

    def fidelity(self, spec: Spec, base: Released, locked: Released) -> dict[str, Any]:
        """KL(base, locked) and top-1 agreement a token on held-out text."""
        from harness.utility.fidelity import fidelity, heldout_blocks

        key = {"base": base.digest, "locked": locked.digest, "corpus": spec.utility.perplexity_corpus}

        def make(entry: Path, work: Path) -> None:
            blocks = heldout_blocks(base.tokenizer, spec.utility, self.data_dir)
            _write(entry / "fidelity.json", fidelity(base, locked, blocks))

        folder, _ = self.entry("fidelity", base, key, make)
        found: dict[str, Any] = json.loads((folder / "fidelity.json").read_text())
        return found

    def scores(self, spec: Spec, task: Task, released: Released, role: Side) -> list[Item]:
        """Items of the test split of an untouched model."""
        key = {"model": released.digest, "task": spec.task, "data": task.digest(), "dtype": spec.model.dtype}

        def make(entry: Path, work: Path) -> None:
            items = [as_item(score, role, None) for score in self._score(task, released, "test")]
            write_items(entry / "items.parquet", items)

        folder, _ = self.entry("scores", released, key, make)
        return [dataclasses.replace(item, model=role) for item in read_items(folder / "items.parquet")]

    # -- attacks -----------------------------------------------------------------------------------------------------

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
        key = {**self.attack_key(spec, task, target, seed), "utility": spec.utility.model_dump(mode="json"),
               "secret": sha256(secret) if secret else None,
               **({"search": digest_of(searched)} if searched is not None else {})}  # fmt: skip

        def make(entry: Path, work: Path) -> None:
            self.progress.note(f"{spec.attack['name']} on {target.name} ({role}, replicate {replicate + 1})")
            meter = Meter(spec.budget, spent={"search": searched.bill} if searched is not None else None)
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
        report: Callable[[float], None] = lambda score: None, log: Log = no_log,
    ) -> tuple[Attacked, Released]:  # fmt: skip
        """Attack `target` on `meter`, and give the attacked model in the target's place; nothing is scored after.

        `report` is told the selection score at each point of the trajectory; what it raises ends the attack. `log` is
        given the curves.
        """
        from harness.models.digest import weights_digest

        def probe(model: PreTrainedModel) -> float:
            scored = task.score(dataclasses.replace(target, model=model), "selection", limit=PROBE_ITEMS)
            report(score := main_score(task, scored))
            return score

        attack = spec.build_attack()
        shown = secret if attack.knowledge is Knowledge.SECRET else None
        context = AttackContext(seed=seed, device=self.device(spec), folder=folder, meter=meter,
                                data_dir=self.data_dir, bf16=self.bf16(spec, target.model), progress=self.progress,
                                task=task, secret=shown, probe=probe, log=log)  # fmt: skip
        attacked = attack.attack(target, context)
        attacked.model.eval()
        return attacked, dataclasses.replace(target, model=attacked.model, digest=weights_digest(attacked.model),
                                             name=f"{target.name}, attacked")  # fmt: skip

    def _attack(self, spec: Spec, task: Task, target: Released, role: Side, seed: int, secret: Path | None,
                meter: Meter, entry: Path, work: Path, log: Log) -> None:  # fmt: skip
        try:
            attacked, after = self.fine_tune(spec, task, target, seed, meter, work, secret, log=log)
        except Outcome as outcome:
            outcome.bills, outcome.role = dict(meter.bills), role
            raise
        write_items(entry / "items.parquet", [as_item(score, role, seed) for score in self._score(task, after, "test")])
        utility = None if role == "reference" else evaluate_utility(after, spec.utility, self.data_dir)
        training = {key: value for key, value in dataclasses.asdict(attacked.training).items() if key != "trajectory"}
        _write(entry / "run.json", {
            "seed": seed, "digest": after.digest, "targets": list(attacked.targets), "report": attacked.report,
            "secret_guess": _guess_scored(spec, attacked, secret),
            "bills": {stage: bill.model_dump(mode="json") for stage, bill in meter.bills.items()},
            "trajectory": [dataclasses.asdict(point) for point in attacked.training.trajectory],
            "training": training, "utility": utility and utility.model_dump(mode="json"),
        })  # fmt: skip

    # -- small parts -------------------------------------------------------------------------------------------------

    def device(self, spec: Spec) -> str:
        """The device that `spec.device` means here.

        Raises:
            UsageError: CUDA is asked for and is not here.
        """
        reason = probes.check("cuda")
        if spec.device.startswith("cuda") and reason:
            raise UsageError(f"device={spec.device!r}: {reason}")
        return spec.device if spec.device != "auto" else "cpu" if reason else "cuda"

    def bf16(self, spec: Spec, model: PreTrainedModel) -> bool:
        """What `spec.precision` means here for this model."""
        if spec.precision != "auto":
            return spec.precision == "bf16"
        return probes.check("bf16") is None and model.num_parameters() >= BF16_PAYS_FROM

    def selection(self, task: Task, released: Released) -> float:
        """Score on the selection split."""
        return main_score(task, self._score(task, released, "selection"))

    def _score(self, task: Task, released: Released, split: Split) -> list[ItemScore]:
        released.model.eval()
        found = task.score(released, split)
        if not found:
            raise UsageError(f"{type(task).__name__} has too little data: there is no item in its split {split!r}")
        return found

    def _corpus(self, name: str, split: str) -> list[str]:
        """What a lock may read: the corpus's training documents, every `LOCK_HELDOUT`th kept for the lock's own checks.

        The corpus's held-out documents stay out of its sight, because perplexity and fidelity are measured on them.
        """
        from harness.corpus import corpus

        documents = corpus(name, "train", self.data_dir)
        return [text for index, text in enumerate(documents) if (index % LOCK_HELDOUT == 0) == (split == "heldout")]

    def _corpus_digest(self, spec: Spec) -> str:
        return digest_of(self._corpus(spec.corpus, "train"))

    def entry(self, kind: str, model: Released, key: dict[str, Any], make: Any) -> tuple[Path, bool]:
        """The cache's entry, made on the threads that this model works on, which are part of its key."""
        threads = threads_for(model.model.num_parameters())
        with torch_threads(threads):
            return self.cache.get_or_make(kind, {**key, "threads": threads}, make)


def main_score(task: Task, items: list[ItemScore]) -> float:
    """Weighted mean of the task's main metric."""
    chosen = [item for item in items if item.metric == task.metric]
    return sum(item.score * item.weight for item in chosen) / sum(item.weight for item in chosen)


def _guess_scored(spec: Spec, attacked: Attacked, secret: Path | None) -> dict[str, float]:
    """How good the attacker's guess of the secret is, where there are both; the attack is over by now."""
    if attacked.guess is None or secret is None:
        return {}
    from safetensors.torch import load_file

    return spec.build_defense().compare(attacked.guess, load_file(secret))


def as_item(score: ItemScore, model: Side, seed: int | None) -> Item:
    """A scored item as a row of `items.parquet`."""
    return Item(model=model, metric=score.metric, seed=seed, item=score.item, score=score.score, weight=score.weight)


def stored_dtype(base: Released) -> str:
    """The type a release of this model is stored in: the one its base was stored in."""
    return str(getattr(base.model.config, "stored_dtype", None) or base.model.config.dtype).removeprefix("torch.")


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True, allow_nan=False))
