"""Models made once and cached by content: bases, locks, controls.

Each result is an entry of `harness.cache`, so a killed run finds again whatever was finished, and two processes do not
do the same work twice. `harness.untouched` adds what they score, `harness.workshop` the attacks.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import probes, registry
from harness.bill import Bill
from harness.cache import Cache, digest_of
from harness.errors import UsageError
from harness.loop.allocator import fixed_cublas, keep_freed_memory
from harness.meters.meter import Meter
from harness.plugins import LockContext, Released
from harness.progress import Progress
from harness.seeds import derive
from harness.spec import Spec
from harness.threads import threads_for, torch_threads
from harness.tracking import Reporting

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.planning.ahead import Ahead
    from harness.tasks.classification import ClassificationTask

LOCK_HELDOUT = 16
"""One document in so many is the lock's own validation text."""
BF16_PAYS_FROM = 20_000_000
"""Parameters from which bf16 autocast is faster than fp32 on CPU (below, casts cost more than they save)."""


@dataclass(frozen=True, kw_only=True)
class Lock:
    """A locked model in the cache."""

    folder: Path
    digest: str
    bill: Bill
    report: dict[str, Any]
    seconds_saved: bool


class Stock:
    """Makes and remembers the models that attacks start from."""

    def __init__(self, *, cache: Cache, data_dir: Path | None, progress: Progress,
                 reporting: Reporting | None = None) -> None:  # fmt: skip
        keep_freed_memory()  # whoever has a stock is about to train
        fixed_cublas()
        self.cache, self.data_dir, self.progress = cache, data_dir, progress
        self.reporting = reporting or Reporting()
        self.ahead: Ahead | None = None
        """Processes that make pieces of a cell beside this one; see `harness.planning.ahead`."""
        self._own: dict[str, ClassificationTask] = {}
        self._bases: dict[str, Path] = {}

    def base(self, spec: Spec) -> Released:
        """The unlocked model, fresh weights each time it is asked for (an attack changes them in place)."""
        from harness.owner import is_made

        return self._made(spec) if is_made(spec) else self._found(spec)

    def own(self, spec: Spec) -> ClassificationTask | None:
        """What the classifier was made for; None for a language model."""
        key = digest_of(spec.own)
        if key not in self._own and (own := spec.build_own(self.data_dir)) is not None:
            self._own[key] = own
        return self._own.get(key)

    def _made(self, spec: Spec) -> Released:
        """The classifier that its owner makes: once for each (model, own task, training)."""
        from harness.models.load import load_model
        from harness.owner import make, untrained

        own, choice = self.own(spec), spec.model
        assert own is not None
        key = {"model": choice.model_dump(mode="json", exclude={"dtype"}), "own": spec.own, "data": own.digest(),
               "device": self.device(spec)}  # fmt: skip
        if (made := digest_of(key)) not in self._bases:
            model, processor = untrained(spec, self.data_dir, lambda: self._found(spec))

            def work_on(entry: Path, work: Path) -> None:
                self.progress.note(f"making {choice.name} for {(spec.own or {})['name']}")
                make(spec, model, processor, own, entry / "model", work, self.device(spec), self.data_dir,
                     self.progress)  # fmt: skip

            start = Released(model=model, tokenizer=processor, digest="", name=choice.name)
            self._bases[made], _ = self.entry("bases", start, key, work_on)
        released = load_model(str(self._bases[made] / "model"), dtype=choice.dtype, device=self.device(spec))
        return dataclasses.replace(released, name=choice.name)

    def _found(self, spec: Spec) -> Released:
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
        from harness.models.placement import fits
        from harness.models.save import save_released

        bf16, defense = self.bf16(spec, base.model), spec.build_defense()
        made = {"name": spec.defense["name"], **defense.control_settings()} if control else spec.defense
        own = self.own(spec)
        key = {"base": base.digest, "defense": made, "seed": spec.seed, "bf16": bf16, "device": self.device(spec),
               **({"corpus": spec.corpus, "corpus_digest": self._corpus_digest(spec)} if own is None
                  else {"own": spec.own, "data": own.digest()})}  # fmt: skip

        def make(entry: Path, work: Path) -> None:
            done = "training the control of" if control else f"locking {base.name} with"
            self.progress.note(f"{done} {spec.defense['name']}")
            base.model.to(device="cpu")  # what is locked is another one, which has the device to itself
            fresh = self.base(spec)
            device = self.device(spec) if fits(fresh.model, self.device(spec)) else "cpu"
            meter = Meter(device=device)
            context = LockContext(seed=derive(spec.seed, "lock"), device=device, folder=work, meter=meter,
                                  data_dir=self.data_dir, bf16=bf16, progress=self.progress, own=own,
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
            write_json(entry / "lock.json", {"digest": digest, "bill": meter.bills["lock"].model_dump(mode="json"),
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

    def device(self, spec: Spec) -> str:
        """The device that `spec.device` means here.

        Raises:
            UsageError: CUDA is asked for and is not here.
        """
        reason = probes.check("cuda")
        if spec.device.startswith("cuda") and reason:
            raise UsageError(f"device={spec.device!r}: {reason}")
        if spec.device.startswith("cuda:"):
            import torch

            torch.cuda.set_device(spec.device)  # accelerate and the Trainer know no number: they take the current one
        return spec.device if spec.device != "auto" else "cpu" if reason else "cuda"

    def bf16(self, spec: Spec, model: PreTrainedModel) -> bool:
        """What `spec.precision` means here for this model."""
        from harness.models.precision import survives_bf16

        if spec.precision != "auto":
            return spec.precision == "bf16"
        pays = probes.check("bf16") is None and model.num_parameters() >= BF16_PAYS_FROM
        return pays and survives_bf16(model)

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


def stored_dtype(base: Released) -> str:
    """The type a release of this model is stored in: the one its base was stored in."""
    return str(getattr(base.model.config, "stored_dtype", None) or base.model.config.dtype).removeprefix("torch.")


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True, allow_nan=False))
