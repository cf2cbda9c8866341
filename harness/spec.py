"""The resolved specification of a cell: everything that decides its numbers, and nothing else. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import Field, SerializeAsAny, SerializerFunctionWrapHandler, model_serializer

from harness import registry
from harness.budget import Budget
from harness.cache import digest_of
from harness.corpus import Corpus
from harness.errors import UsageError
from harness.models.gate import check_folder
from harness.models.resolve import local_folder
from harness.owner_settings import OwnerTraining
from harness.plugins import Attack, Defense, Plugin, Task
from harness.records.redact import redact_tree
from harness.scenario import complete
from harness.search.spec import SearchSpec, planned
from harness.settings import Settings
from harness.tasks.classification import ClassificationTask
from harness.utility.spec import UtilitySpec


class ModelChoice(Settings):
    """Which base, and how it is loaded."""

    name: str = "tiny"
    """A known name, a local folder, or a hub id."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the weights while they are used."""
    revision: str | None = None
    """Hub revision."""
    trust_remote_code: bool = False
    """Allow a checkpoint to bring its own Python code."""
    digest: str | None = None
    """sha256 over the files of a local folder; filled in when the spec is resolved."""
    training: OwnerTraining | None = None
    """How the owner trains the classifier of a scenario; absent from the spec and its hash elsewhere."""

    @model_serializer(mode="wrap")
    def _without_training(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = serialize(self)
        if self.training is None:
            del values["training"]
        return values


class Spec(Settings):
    """One cell: (model, defense, attack, task, seed, budget) and every setting of them."""

    model: ModelChoice = ModelChoice()
    """The base."""
    defense: dict[str, Any] = Field(default_factory=lambda: {"name": "none"})
    """The lock: its name and all its settings."""
    attack: dict[str, Any] = Field(default_factory=lambda: {"name": "lora"})
    """The attack: its name and all its settings."""
    task: dict[str, Any] = Field(default_factory=lambda: {"name": "python_source"})
    """What the attacker wants: the task's name and all its settings."""
    own: dict[str, Any] | None = None
    """What a classifier was made for: its utility, and what a lock trains on; absent for a language model."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Root seed; every seed in the cell derives from it."""
    budget: Budget = Budget()
    """What the attacker may spend, on the lock and on the base alike."""
    search: SearchSpec = SearchSpec()
    """The attacker's hyper-parameter search; absent from the spec and its hash where there is none."""
    replicates: int = Field(2, gt=0, le=100)
    """Attack seeds in this cell: the attack, and the reference, are each run this many times."""
    corpus: Corpus = "python_docs"
    """Public text that a defense may distil or tune on."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of training; auto is bf16 autocast where the machine has it and the model is large enough to gain."""
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda|cuda:[0-9]+)$")
    """auto, cpu, cuda or cuda:N."""
    utility: SerializeAsAny[UtilitySpec] = UtilitySpec()
    """What the released model must still do."""

    @model_serializer(mode="wrap")
    def _without_what_is_idle(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A sampler that is never asked decides nothing: cells without a search are the same cell whatever it says.

        So with the own task of a classifier for a language model, and a language model's corpus for a classifier.
        """
        values: dict[str, Any] = serialize(self)
        for key in ("own",) if self.own is None else ("corpus", "utility"):
            del values[key]
        if not self.search.trials and self.budget.trials is None:
            del values["search"]
        return values

    @property
    def id(self) -> str:
        """16 hex digits of the sha256 of the whole resolved spec (design invariant 1)."""
        return digest_of(self)[:16]

    def title(self) -> str:
        """`tiny / dlr / lora / python_source / seed 0`, for people."""
        return (f"{self.model.name} / {self.defense['name']} / {self.attack['name']} / "
                f"{self.task['name']} / seed {self.seed}")  # fmt: skip

    def build_defense(self) -> Defense:
        """The lock, with its settings."""
        return cast(Defense, build(registry.defenses(), self.defense, "defense"))

    def build_attack(self) -> Attack:
        """The attack, with its settings."""
        return cast(Attack, build(registry.attacks(), self.attack, "attack"))

    def build_task(self, data_dir: Path | None) -> Task:
        """The task, with its settings and data."""
        return cast(Task, build(registry.tasks(), self.task, "task", data_dir))

    def build_own(self, data_dir: Path | None) -> ClassificationTask | None:
        """A classifier's own task, with its settings and data; None for a language model."""
        if self.own is None:
            return None
        return cast(ClassificationTask, build(registry.tasks(), self.own, "own", data_dir))


def build(plugins: registry.Registry[Any], chosen: Mapping[str, Any], where: str, *arguments: Any) -> Any:
    """Instantiate the plug-in that `chosen["name"]` names with the rest of `chosen` as its settings.

    Raises:
        UsageError: unknown name, unknown setting, impossible value.
    """
    kind: type[Plugin] = plugins.get(str(chosen["name"]))
    settings = {key: value for key, value in chosen.items() if key != "name"}
    return kind(kind.Settings.parse(settings, where), *arguments)


def resolve(raw: Mapping[str, Any]) -> Spec:
    """Check raw nested values and fill in every default, plug-ins' settings included.

    Args:
        raw: as from `layers`: `{"model": "tiny" | {...}, "defense": "dlr" | {"name": "dlr", "depth": 32}, ...}`.

    Raises:
        UsageError: naming the key, the value and what is allowed. Nothing heavy has been imported by then.
    """
    values, built = dict(raw), dict[str, Any]()
    for section, plugins in (("task", registry.tasks()), ("defense", registry.defenses()),
                             ("attack", registry.attacks())):  # fmt: skip
        default = Spec().model_dump()[section]
        chosen = {**default, **named(values.get(section, {}), section)}
        if section == "attack":
            known = plugins.get(str(chosen["name"])).Settings.model_fields
            chosen = {key: value for key, value in built["task"].attack_defaults.items() if key in known} | chosen
        built[section] = build(plugins, chosen, section)
        values[section] = {"name": chosen["name"], **built[section].settings.model_dump(mode="json")}
    values["model"] = _with_digest(named(values.get("model", {}), "model"))
    values = complete(values, **built)
    if isinstance(values.get("budget"), str):
        values["budget"] = Budget.from_text(values["budget"])
    spec = Spec.parse(values, "spec")
    _check_secrets(spec.model_dump(mode="json"), "spec")
    search = planned(spec.search, spec.budget, spec.build_attack(), spec.attack["name"])
    return spec.model_copy(update={"search": search})


def named(value: Any, section: str) -> dict[str, Any]:
    if isinstance(value, str):
        return {"name": value}
    if not isinstance(value, Mapping):
        raise UsageError(f"{section}={value!r}: expected a name or a mapping with a name")
    return dict(value)


def _check_secrets(value: Any, where: str) -> None:
    for key, part in value.items():
        if isinstance(part, Mapping):
            _check_secrets(part, f"{where}.{key}")
        elif redact_tree([part], paths=False) != [part]:
            raise UsageError(f"{where}.{key} holds what looks like a password or an access token; a spec is printed "
                             "and recorded, so give the secret in some other way")  # fmt: skip


def _with_digest(model: dict[str, Any]) -> dict[str, Any]:
    name = str(model.get("name", "tiny"))
    folder = None if name in registry.models().names() else local_folder(name)
    if folder is not None:
        from harness.models.digest import files_digest

        check_folder(folder)  # before every file in it is read
        model["digest"] = files_digest(folder)
    return model
