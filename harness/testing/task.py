"""What every task must hold to: stable splits that are apart, items with stable ids, and scores that repeat."""

from __future__ import annotations

import functools
import math
import re
from pathlib import Path
from typing import Any, ClassVar

from harness.plugins import ItemScore, Released, Split
from harness.testing.models import random_llama, released
from harness.testing.plugin import PluginConformance
from harness.train_settings import TrainSettings

SPLITS: tuple[Split, ...] = ("selection", "test")


class TaskConformance(PluginConformance):
    """Subclass it, set `kind`; the rest has defaults (design invariants 9 and 10)."""

    data_dir: ClassVar[Path | None] = None
    """The data pack, for a task that needs it."""
    limit: ClassVar[int] = 4
    """Items scored in these tests."""

    @classmethod
    def build(cls, **changes: Any) -> Any:
        """The task with `settings`, some changed."""
        settings = cls.kind.Settings.parse({**cls.settings, **changes}, "settings")
        return cls.kind(settings, cls.data_dir)

    @classmethod
    def task(cls) -> Any:
        """The task, made once for all tests that change nothing of it."""
        this: Any = cls  # mypy does not take a class for hashable
        return _made(this)

    @classmethod
    def target(cls) -> Released:
        """A fresh model of the task's kind: random. Override it for a task of classifiers."""
        return released(random_llama())

    def items(self, split: Split, limit: int | None = None) -> list[ItemScore]:
        """Scores of a random model."""
        scores: list[ItemScore] = self.task().score(self.target(), split, limit=limit or self.limit)
        return scores

    def test_there_is_something_to_train_on_in_a_fixed_order(self) -> None:
        import torch

        settings = TrainSettings(per_device_train_batch_size=2, block_size=64)
        first, again = (task.batches(self.target().tokenizer, settings, seed=3)(0, 0)
                        for task in (self.task(), self.build()))  # fmt: skip
        assert self.task().has_training_data()
        assert set(first) == set(again)
        assert all(torch.equal(first[key], again[key]) for key in first)
        if self.kind.kind != "causal_lm":
            return
        texts = list(self.task().train_texts())
        assert texts
        assert all(isinstance(text, str) and text.strip() for text in texts)
        assert list(self.build().train_texts()) == texts

    def test_the_digest_is_of_the_content(self) -> None:
        digest = self.task().digest()
        assert re.fullmatch("[0-9a-f]{64}", digest)
        assert self.build().digest() == digest

    def test_every_split_has_the_main_metric_and_it_is_a_number(self) -> None:
        for split in SPLITS:
            scores = self.items(split)
            assert self.kind.metric in {score.metric for score in scores}
            assert all(math.isfinite(score.score) and score.weight > 0 for score in scores)
        assert self.kind.unit
        chance = self.task().chance
        assert chance is None or 0 <= chance < 1

    def test_an_item_has_one_id_in_one_split(self) -> None:
        ids = {split: [(score.metric, score.item) for score in self.items(split)] for split in SPLITS}
        assert all(len(set(found)) == len(found) for found in ids.values())
        assert not set(ids["selection"]) & set(ids["test"])

    def test_a_limit_takes_the_first_items(self) -> None:
        few, more = ({score.item for score in self.items("test", limit)} for limit in (2, self.limit))
        assert len(few) <= 2
        assert few <= more

    def test_scores_repeat_and_leave_the_model_alone(self) -> None:
        from harness.models.digest import weights_digest

        target = self.target()
        first, again = (task.score(target, "test", limit=self.limit) for task in (self.task(), self.build()))
        assert first == again
        assert not target.model.training
        assert weights_digest(target.model) == target.digest
        assert all(parameter.grad is None for parameter in target.model.parameters())


@functools.cache
def _made(case: type[TaskConformance]) -> Any:
    return case.build()
