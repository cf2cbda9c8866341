"""The owner's work before any lock: a classifier built, trained on its own task, and made to forget."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import registry
from harness.errors import UsageError
from harness.kinds import kind_of_class
from harness.meters.meter import Meter
from harness.models.known import KnownModel
from harness.models.save import save_released
from harness.owner_settings import OwnerTraining
from harness.plugins import Context, Released
from harness.spec import Spec, build

if TYPE_CHECKING:
    from harness.progress import Progress
    from harness.tasks.classification import ClassificationTask


def is_made(spec: Spec) -> bool:
    """Whether the spec's base is made here: trained, or written from the pack's bare weights."""
    known = _known(spec.model.name)
    return spec.own is not None and (spec.model.training is not None or (known is not None and known.build is not None))


def untrained(spec: Spec, data_dir: Path | None, load: Callable[[], Released]) -> tuple[Any, Any]:
    """(model, processor) as the owner begins; random weights under the seed of `spec.model.training`.

    Args:
        spec: names model and own task.
        data_dir: the data pack.
        load: loads a model that is not built here.

    Raises:
        UsageError: the model is not here, or cannot have the own task's labels.
    """
    import torch

    labels, known = _labels(spec, data_dir), _known(spec.model.name)
    if known is None or known.build is None:
        from harness.models.architectures import classifier_from

        released = load()
        if kind_of_class(type(released.model).__name__) != "causal_lm":
            return released.model, released.tokenizer
        return classifier_from(released, labels), released.tokenizer
    module, _, function = known.build.partition(":")
    seed = spec.model.training.seed if spec.model.training else 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, processor = getattr(importlib.import_module(module), function)(data_dir, labels)
    return model, processor


def make(spec: Spec, model: Any, processor: Any, own: ClassificationTask, folder: Path, work: Path, device: str,
         data_dir: Path | None, progress: Progress) -> None:  # fmt: skip
    """Train the classifier and write it to `folder`; in float32, on a bill that nobody pays."""
    from harness.training import train

    training, known = spec.model.training, _known(spec.model.name)
    if training is not None:
        own_settings = {key: value for key, value in (spec.own or {}).items() if key != "name"}
        stages = [("owner", {**own_settings, "forget": []} if "forget" in own_settings else own_settings, training)]
        if known is not None and known.trained:
            stages = []
        if own_settings.get("forget"):
            stages.append(("unlearn", own_settings, _unlearning(training)))
        for label, settings, knobs in stages:
            task = build(registry.tasks(), {"name": (spec.own or {})["name"], **settings}, "own", data_dir)
            context = Context(seed=training.seed, device=device, folder=work, meter=Meter(), data_dir=data_dir,
                              progress=progress)  # fmt: skip
            model.requires_grad_(True).to(device)
            train(model, task.batches(processor, knobs, seed=training.seed), knobs, context, label=label,
                  loss_fn=task.loss_fn)  # fmt: skip
    save_released(model.eval(), processor, folder, dtype="float32", lock=None, base_name=spec.model.name,
                  base_digest="", defense=None)  # fmt: skip


def _unlearning(training: OwnerTraining) -> OwnerTraining:
    return training.model_copy(update={"max_steps": training.unlearn_steps,
                                       "learning_rate": training.unlearn_learning_rate})  # fmt: skip


def _known(name: str) -> KnownModel | None:
    return registry.models().get(name) if name in registry.models().names() else None


def _labels(spec: Spec, data_dir: Path | None) -> int:
    own = spec.build_own(data_dir)
    if own is None:
        raise UsageError(f"own is missing: {spec.model.name!r} is no classifier without it")
    return own.labels
