"""A small image classifier, a task of two kinds of squares, and contexts, for the tests of scenarios."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np

from harness.budget import Budget
from harness.meters.meter import Meter
from harness.models.digest import weights_digest
from harness.models.images import ImageProcessor
from harness.plugins import AttackContext, Attacked, LockContext, Released
from harness.tasks.classification import Example
from harness.tasks.images import ImageSettings, ImageTask


class Squares(ImageTask):
    """Bright squares in one of four corners of an 8 x 8 image, under noise: a few steps learn them."""

    needs_pack = False
    Settings = ImageSettings

    def images(self) -> dict[str, tuple[list[Any], list[int]]]:
        random = np.random.default_rng(0)
        splits = {}
        for split, count in (("train", 160), ("test", 64)):
            numbers = [index % 4 for index in range(count)]
            splits[split] = ([self._draw(number, random) for number in numbers], numbers)
        return splits

    def _draw(self, number: int, random: Any) -> Any:
        image = random.integers(0, 90, (8, 8)).astype(np.uint8)
        row, column = 4 * (number // 2), 4 * (number % 2)
        image[row : row + 4, column : column + 4] += 120
        return image


def squares(**settings: Any) -> Squares:
    return Squares(ImageSettings(**{"classes": (0, 1, 2, 3)} | settings))


def small_resnet(labels: int = 4, seed: int = 0) -> Released:
    """An untrained two-stage ResNet for grey 8 x 8 images."""
    import torch

    from harness.models.architectures import resnet_tiny

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, processor = resnet_tiny(None, labels)
    return Released(model=model.eval(), tokenizer=processor, digest=weights_digest(model), name="small_resnet")


def trained(released: Released, own: Squares, steps: int = 40) -> Released:
    """The classifier after a short training on `own`, in place."""
    import dataclasses
    import tempfile

    from harness.train_settings import TrainSettings
    from harness.training import train

    settings = TrainSettings(max_steps=steps, learning_rate=1e-2, per_device_train_batch_size=16, eval_points=0)
    with tempfile.TemporaryDirectory() as folder:
        context = attack_context(own, Path(folder))
        train(released.model, own.batches(released.tokenizer, settings, seed=0), settings, context,
              loss_fn=own.loss_fn)  # fmt: skip
    return dataclasses.replace(released, digest=weights_digest(released.model))


def attack_context(task: Any, folder: Path, seed: int = 0, **budget: Any) -> AttackContext:
    return AttackContext(seed=seed, device="cpu", folder=folder, meter=Meter(Budget(**budget)), task=task)


def lock_context(own: Any, folder: Path) -> LockContext:
    def corpus(split: str) -> list[str]:
        raise AssertionError("a classifier's lock reads no text")

    return LockContext(seed=0, device="cpu", folder=folder, meter=Meter(), own=own, corpus=corpus)


def attacked(name: str, released: Released, task: Any, folder: Path, **settings: Any) -> Attacked:
    """Run a registered attack on a copy of `released`, the head adapted as the harness does."""
    import dataclasses

    from harness import registry

    kind = registry.attacks().get(name)
    known = {"max_steps": 30, "per_device_train_batch_size": 16, "eval_points": 0} | settings
    target = task.adapt(dataclasses.replace(released, model=copy.deepcopy(released.model)))
    return kind(kind.Settings(**known)).attack(target, attack_context(task, folder))


def accuracy(released: Released, task: Any) -> float:
    scores = task.score(released, "test")
    return sum(item.score for item in scores) / len(scores)


__all__ = ["Example", "ImageProcessor", "Squares", "accuracy", "attack_context", "attacked", "lock_context",
           "small_resnet", "squares", "trained"]  # fmt: skip
