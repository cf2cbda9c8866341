"""Classification as a task: labelled examples, cross-entropy, accuracy item by item, and whose head answers.

A task with the label set of its own (`head: new`) is attacked with a fresh zero head, which is the attacker's; one that
keeps the released labels (`head: own`) is attacked and scored with the head that was released. Imports no torch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from harness.errors import UsageError
from harness.plugins import ItemScore, Released, Split, Task
from harness.settings import Settings
from harness.tasks.content import bucket, content_digest

if TYPE_CHECKING:
    import torch

    from harness.train_settings import TrainSettings
    from harness.training import Batch, Batches, LossFn

SELECTION_SHARE = 8
"""One in so many training examples is set aside for selection."""
SCORED_AT_ONCE = 64
"""Examples of a forward pass in scoring; fixed, because it can change the last digits."""


class Example(NamedTuple):
    """A stable id, an input (an image, or one or two texts) and the index of its label."""

    item: str
    input: Any
    label: int


class ClassificationSettings(Settings):
    """Sizes of the splits, and whose head answers."""

    head: Literal["new", "own"] = "new"
    """`new`: the attacker's head for these labels; `own`: the labels are the released model's, and so is the head."""
    max_train: int = Field(5000, gt=0)
    """Training examples at most, chosen by a stable hash."""
    max_items: int = Field(1000, gt=0)
    """Items of the test split at most, chosen by a stable hash; the selection split has two fifths as many."""


class ClassificationTask(Task):
    """Labelled examples; `accuracy` is the share of items whose largest logit is that of the label."""

    metric: ClassVar[str] = "accuracy"
    unit: ClassVar[str] = "accuracy"
    Settings = ClassificationSettings
    settings: ClassificationSettings

    @property
    @abstractmethod
    def labels(self) -> int:
        """How many labels there are."""

    @abstractmethod
    def load(self) -> tuple[list[Example], list[Example]]:
        """Every example of the official training and test splits."""

    @abstractmethod
    def encoder(self, processor: Any, examples: Sequence[Example], size: int) -> Encoder:
        """What turns rows of `examples` into model inputs.

        Args:
            processor: the released model's tokenizer or image processor.
            examples: all that will be asked for.
            size: tokens a text at most.
        """

    def key(self, example: Example) -> str:
        """What makes two inputs the same: they are kept on one side of every split."""
        return example.item

    # -- splits ------------------------------------------------------------------------------------------------------

    def examples(self, split: Literal["train", "selection", "test"]) -> list[Example]:
        """The examples of a split."""
        return self._splits[split]

    @cached_property
    def _splits(self) -> dict[str, list[Example]]:
        """A repeated input stays in the first of test, selection and train that has it; order is by a stable hash."""
        rest, test = self.load()
        seen: set[str] = set()
        found: dict[str, list[Example]] = {"test": self._new(test, seen)}
        rest = self._new(rest, seen)
        chosen = {example.item for example in rest if bucket(self.key(example), SELECTION_SHARE) == 0}
        count = self.settings.max_items
        found["selection"] = [example for example in rest if example.item in chosen][: max(1, count * 2 // 5)]
        found["train"] = [example for example in rest if example.item not in chosen][: self.settings.max_train]
        found["test"] = found["test"][:count]
        return found

    def _new(self, examples: Sequence[Example], seen: set[str]) -> list[Example]:
        kept = {}
        for example in sorted(examples, key=lambda example: bucket(self.key(example) + example.item, 2**40)):
            if (key := self.key(example)) not in seen:
                seen.add(key)
                kept[example.item] = example
        return list(kept.values())

    def digest(self) -> str:
        """sha256 over all splits."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return content_digest({split: [[e.item, self.key(e), e.label] for e in examples]
                               for split, examples in self._splits.items()})  # fmt: skip

    def train_texts(self) -> Sequence[str]:
        """There are none that a language model could be trained on."""
        raise UsageError(f"task {type(self).__name__} is a classification, it has no text to model")

    def has_training_data(self) -> bool:
        """See `Task`."""
        return bool(self.examples("train"))

    # -- the model's side --------------------------------------------------------------------------------------------

    @property
    def chance(self) -> float:  # type: ignore[override]
        """Of a guess among the labels."""
        return 1 / self.labels

    @property
    def keeps_head(self) -> bool:
        """See `Task`."""
        return self.settings.head == "own"

    @property
    def mark(self) -> str:
        """Whose labels a replaced head answers."""
        return f"{type(self).__name__} {self.labels}"

    def adapt(self, released: Released) -> Released:
        """The released model with the attacker's zero head, in place, where the labels are not its own."""
        if not self.keeps_head:
            from harness.models.heads import replace_head

            replace_head(released.model, self.labels, self.mark)
        return released

    def batches(self, tokenizer: Any, settings: TrainSettings, *, seed: int, examples: int | None = None) -> Batches:
        """See `Task.batches`; `settings.block_size` is the most tokens of a text."""
        return ExampleBatches(self.training_examples()[:examples], self, tokenizer, settings, seed)

    def training_examples(self) -> list[Example]:
        """What is trained on, labels as the loss sees them."""
        return self.examples("train")

    @property
    def loss_fn(self) -> LossFn:
        """Mean cross-entropy, nats an example."""
        return cross_entropy

    def score(self, released: Released, split: Split, *, limit: int | None = None) -> list[ItemScore]:
        """Accuracy of each item; where the labels are not the model's own, under the attacker's head."""
        chosen = self.examples(split)[:limit]
        predicted = self.predictions(released, chosen)
        return [ItemScore(metric=self.metric, item=example.item, score=float(guess == example.label))
                for example, guess in zip(chosen, predicted, strict=True)]  # fmt: skip

    def predictions(self, released: Released, examples: Sequence[Example]) -> list[int]:
        """The index of the largest logit of each example (the first of equal ones)."""
        return [int(index) for index in self.logits(released, examples).argmax(-1)] if examples else []

    def logits(self, released: Released, examples: Sequence[Example]) -> torch.Tensor:
        """(examples, labels) float32 on the CPU; logits that are not finite count as equal, so as no answer."""
        from contextlib import nullcontext

        import torch

        from harness.models.heads import answering

        model = released.model
        encode = self.encoder(released.tokenizer, examples, context_size(model))
        head = nullcontext() if self.keeps_head else answering(model, self.labels, self.mark)
        found = []
        with head, torch.inference_mode():
            for start in range(0, len(examples), SCORED_AT_ONCE):
                batch = encode(list(range(start, min(start + SCORED_AT_ONCE, len(examples)))))
                inputs = {key: value.to(model.device) for key, value in batch.items()}
                found.append(model(**inputs).logits.float().cpu())
        logits = torch.cat(found)
        return torch.where(logits.isfinite().all(-1, keepdim=True), logits, torch.zeros(()))


class Encoder:
    """Rows of a list of examples as model inputs, without labels."""

    def __call__(self, rows: list[int]) -> dict[str, torch.Tensor]:
        """Tensors by the names of the model's `forward`, one row each."""
        raise NotImplementedError


class ExampleBatches:
    """Batches of labelled examples as a pure function of the step, shuffled anew each epoch; all of one shape."""

    def __init__(self, examples: Sequence[Example], task: ClassificationTask, processor: Any, settings: TrainSettings,
                 seed: int) -> None:  # fmt: skip
        import torch

        from harness.packing import Shuffled

        if not examples:
            raise UsageError(f"task {type(task).__name__} has no training example")
        self._encode = task.encoder(processor, examples, settings.block_size)
        self._labels = torch.tensor([example.label for example in examples])
        self._order = Shuffled(len(examples), seed)
        self._size, self._accumulate = settings.per_device_train_batch_size, settings.gradient_accumulation_steps

    def __call__(self, step: int, micro: int) -> Batch:
        """The inputs and `labels` (batch) int64."""
        first = (step * self._accumulate + micro) * self._size
        rows = [self._order[index] for index in range(first, first + self._size)]
        return {**self._encode(rows), "labels": self._labels[rows]}


def logits_of(model: Any, batch: Batch) -> torch.Tensor:
    """Logits (batch, labels) of a batch, its labels aside."""
    logits: torch.Tensor = model(**{key: value for key, value in batch.items() if key != "labels"}).logits
    return logits


def cross_entropy(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy of a batch, nats an example."""
    from torch.nn import functional

    return functional.cross_entropy(logits_of(model, batch).float(), batch["labels"])


def context_size(model: Any) -> int:
    """Tokens that scoring reads of a text at most: the model's positions, or 512 where that is fewer."""
    return min(512, getattr(model.config, "max_position_embeddings", None) or 512)
