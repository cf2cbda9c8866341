"""What makes a cell about a classifier: its own task, and how its owner trained it. Imports no torch.

The kind of the attacker's task decides: a cell about a causal language model has neither, and its spec and hash are
as they were. What does not go together is refused here, before a model is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness import registry
from harness.errors import UsageError
from harness.kinds import Kind, kind_of_config
from harness.models.gate import read_json
from harness.models.known import KnownModel
from harness.models.resolve import local_folder
from harness.owner_settings import OwnerTraining

if TYPE_CHECKING:
    from harness.plugins import Attack, Defense, Task

_ONLY_LANGUAGE = ("corpus", "utility")


def complete(values: dict[str, Any], defense: Defense, attack: Attack, task: Task) -> dict[str, Any]:
    """The raw spec with the owner's task and training filled in, where the task is a classification.

    Args:
        values: raw; defense, attack and task are resolved mappings with names.
        defense: built of it.
        attack: built of it.
        task: built of it.

    Raises:
        UsageError: model, lock, attack, own task or setting does not go with the task's kind.
    """
    names = {section: values[section]["name"] for section in ("defense", "attack", "task")}
    for section, plugin in (("defense", defense), ("attack", attack)):
        if task.kind not in plugin.kinds:
            raise UsageError(f"{section} {names[section]!r} is for {' and '.join(plugin.kinds)}, and task "
                             f"{names['task']!r} is {task.kind}; {section}s for it: "
                             f"{_supporting(section, task.kind)}")  # fmt: skip
    model = dict(values["model"])
    kind, known = model_kind(str(model.get("name", "tiny")))
    if kind is not None and kind != task.kind and (kind, task.kind) != ("causal_lm", "sequence_classification"):
        raise UsageError(f"model {model.get('name', 'tiny')!r} is {kind}, and task {names['task']!r} is {task.kind}; "
                         f"models for it: {_models(task.kind)}, or a local folder")  # fmt: skip
    if task.kind == "causal_lm":
        for key, value in (("own", values.get("own")), ("model.training", model.get("training"))):
            if value is not None:
                raise UsageError(f"{key}={value!r}: only a classifier has one, and task {names['task']!r} is causal_lm")
        return values
    for key in _ONLY_LANGUAGE:
        if values.get(key):
            raise UsageError(f"{key}={values[key]!r}: only a language model has one; the utility of a classifier is "
                             "its accuracy on its own task (--set own=...)")  # fmt: skip
    own = _own(values.get("own"), task, known, str(model.get("name", "tiny")))
    if own["kind"] != task.kind:
        raise UsageError(f"own={own['name']!r} is {own['kind']}, and task {names['task']!r} is {task.kind}")
    forgets = bool(own.get("forget"))
    model["training"] = _training(model.get("training"), known, kind == task.kind, forgets)
    return {**values, "model": model, "own": {key: value for key, value in own.items() if key != "kind"}}


def model_kind(name: str) -> tuple[Kind | None, KnownModel | None]:
    """The kind of a model and its entry among the known ones; None for what is not here (a hub id)."""
    known = registry.models().get(name) if name in registry.models().names() else None
    if known is not None:
        return known.kind, known
    folder = local_folder(name)
    if folder is None or not (folder / "config.json").is_file():
        return None, None
    return kind_of_config(read_json(folder / "config.json")), None


def _own(given: Any, task: Task, known: KnownModel | None, model: str) -> dict[str, Any]:
    """The own task, resolved, with its `kind`: as given, else what the attacker's task implies, else the model's."""
    raw = {"name": given} if isinstance(given, str) else given
    if raw is not None and not isinstance(raw, Mapping):
        raise UsageError(f"own={given!r}: expected a task's name or a mapping with a name")
    default = task.own_default() or (known.own if known else None)
    chosen = {**(default if default and (not raw or raw.get("name", default["name"]) == default["name"]) else {}),
              **(raw or {})}  # fmt: skip
    if "name" not in chosen:
        raise UsageError(f"own is missing: which task the classifier {model!r} was made for, for example "
                         f"--set own={_tasks(task.kind)[0]}; allowed: {', '.join(_tasks(task.kind))}")  # fmt: skip
    plugin = registry.tasks().get(str(chosen["name"]))
    settings = {key: value for key, value in chosen.items() if key != "name"}
    if plugin.kind != "causal_lm":
        settings["head"] = "own"
    resolved = plugin.Settings.parse(settings, "own").model_dump(mode="json")
    return {"name": chosen["name"], **resolved, "kind": plugin.kind}


def _training(given: Any, known: KnownModel | None, classifier: bool, forgets: bool) -> dict[str, Any] | None:
    """How the owner makes the classifier; None where the model is one already and forgets nothing."""
    made = known is not None and known.build is not None and not known.trained
    if classifier and not made and not forgets:
        if given is not None:
            raise UsageError(f"model.training={given!r}: the model is a trained classifier already")
        return None
    raw = {**(known.training if known else {}), **(given or {})}
    return OwnerTraining.parse(raw, "model.training").model_dump(mode="json")


def _supporting(section: str, kind: Kind) -> str:
    plugins: registry.Registry[Any] = registry.defenses() if section == "defense" else registry.attacks()
    return ", ".join(name for name, plugin in plugins.working().items() if kind in plugin.kinds)


def _models(kind: Kind) -> str:
    bodies = ("causal_lm",) if kind == "sequence_classification" else ()
    return ", ".join(name for name, model in registry.models().working().items() if model.kind in (kind, *bodies))


def _tasks(kind: Kind) -> list[str]:
    return [name for name, task in registry.tasks().working().items() if task.kind == kind]
