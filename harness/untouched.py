"""What untouched models score, made once and cached by content: utilities, fidelities, the attacker's task."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError
from harness.plugins import ItemScore, Released, Split, Task
from harness.records.items import Item, Side, read_items, write_items
from harness.spec import Spec
from harness.stock import Stock, write_json
from harness.utility import UtilityScores, evaluate_utility

if TYPE_CHECKING:
    from harness.tasks.classification import ClassificationTask


class Untouched(Stock):
    """Does and remembers the scoring of models that are not attacked."""

    def utility(self, spec: Spec, released: Released) -> UtilityScores:
        """What the model still does: by lm-eval and held-out perplexity, or a classifier's accuracy on its own task."""
        own = self.own(spec)
        asked = {"utility": spec.utility.model_dump(mode="json")} if own is None else self.own_key(spec, own)
        key = {"model": released.digest, **asked, "dtype": spec.model.dtype}

        def make(entry: Path, work: Path) -> None:
            self.progress.note(f"utility of {released.name}")
            scores = self.evaluated(spec, released)
            write_json(entry / "utility.json", scores.model_dump(mode="json"))

        folder, _ = self.entry("utility", released, key, make)
        return UtilityScores.model_validate_json((folder / "utility.json").read_text())

    def evaluated(self, spec: Spec, released: Released) -> UtilityScores:
        """`utility`, not remembered."""
        from harness.models.placement import on_device
        from harness.utility.classifier import own_utility

        own = self.own(spec)
        with on_device(released.model, self.device(spec)):
            if own is None:
                return evaluate_utility(released, spec.utility, self.data_dir)
            return own_utility(released, own, (spec.own or {})["name"])

    def own_key(self, spec: Spec, own: ClassificationTask) -> dict[str, Any]:
        """What a classifier's utility depends on beside the model."""
        return {"own": spec.own, "data": own.digest()}

    def fidelity(self, spec: Spec, base: Released, locked: Released) -> dict[str, Any]:
        """KL(base, locked) and top-1 agreement, a token of held-out text or an item of a classifier's own test."""
        from harness.models.placement import on_device
        from harness.utility.classifier import own_fidelity
        from harness.utility.fidelity import fidelity, heldout_blocks

        own = self.own(spec)
        asked = {"corpus": spec.utility.perplexity_corpus} if own is None else self.own_key(spec, own)
        key = {"base": base.digest, "locked": locked.digest, **asked}

        def make(entry: Path, work: Path) -> None:
            device = self.device(spec)
            with on_device(base.model, device), on_device(locked.model, device):
                if own is not None:
                    found = own_fidelity(base, locked, own.examples("test"), own)
                else:
                    found = fidelity(base, locked, heldout_blocks(base.tokenizer, spec.utility, self.data_dir))
            write_json(entry / "fidelity.json", found)

        folder, _ = self.entry("fidelity", base, key, make)
        found: dict[str, Any] = json.loads((folder / "fidelity.json").read_text())
        return found

    def scores(self, spec: Spec, task: Task, released: Released, role: Side) -> list[Item]:
        """Items of the test split of an untouched model."""
        key = self.score_key(spec, task, released)

        def make(entry: Path, work: Path) -> None:
            items = [as_item(score, role, None) for score in self._score(spec, task, released, "test")]
            write_items(entry / "items.parquet", items)

        folder, _ = self.entry("scores", released, key, make)
        return [dataclasses.replace(item, model=role) for item in read_items(folder / "items.parquet")]

    def score_key(self, spec: Spec, task: Task, released: Released) -> dict[str, Any]:
        """What the score of an untouched model depends on."""
        return {"model": released.digest, "task": spec.task, "data": task.digest(), "dtype": spec.model.dtype}

    def selection(self, spec: Spec, task: Task, released: Released) -> float:
        """Score on the selection split."""
        return main_score(task, self._score(spec, task, released, "selection"))

    def _score(self, spec: Spec, task: Task, released: Released, split: Split,
               limit: int | None = None) -> list[ItemScore]:  # fmt: skip
        from harness.models.placement import on_device

        released.model.eval()
        with on_device(released.model, self.device(spec)):
            found = task.score(released, split, limit=limit)
        if not found:
            raise UsageError(f"{type(task).__name__} has too little data: there is no item in its split {split!r}")
        return found


def main_score(task: Task, items: list[ItemScore]) -> float:
    """Weighted mean of the task's main metric."""
    chosen = [item for item in items if item.metric == task.metric]
    return sum(item.score * item.weight for item in chosen) / sum(item.weight for item in chosen)


def as_item(score: ItemScore, model: Side, seed: int | None) -> Item:
    """A scored item as a row of `items.parquet`."""
    return Item(model=model, metric=score.metric, seed=seed, item=score.item, score=score.score, weight=score.weight)
