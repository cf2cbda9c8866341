"""Multiple-choice tasks of the data pack, in lm-evaluation-harness's prompts. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from harness.plugins import ItemScore, Split, Task
from harness.settings import Settings
from harness.tasks import sources
from harness.tasks.content import bucket, content_digest, text_hash
from harness.tasks.multiple_choice import Question, score_questions
from harness.tasks.pack import Row, Source

if TYPE_CHECKING:
    from harness.plugins import Released

SELECTION_SHARE = 8
"""One in so many training rows is set aside for selection."""


class ChoiceSettings(Settings):
    """Sizes of the scored splits."""

    max_items: int = Field(500, gt=0)
    """Items of the test split at most, chosen by a stable hash; the selection split has two fifths as many."""


class ChoiceTask(Task):
    """Options scored by log-likelihood; `acc`, and `acc_norm` per byte of the option."""

    metric: ClassVar[str] = "acc_norm"
    unit: ClassVar[str] = "accuracy"
    needs_pack: ClassVar[bool] = True
    source: ClassVar[Source]
    Settings = ChoiceSettings
    settings: ChoiceSettings

    def context(self, row: Row) -> str:
        """The prompt of a row."""
        return f"Question: {row['question']}\nAnswer:"

    def pairs(self, row: Row) -> tuple[tuple[str, str], ...]:
        """(context, continuation) of each option."""
        return tuple((self.context(row), f" {option}") for option in row["choices"])

    def train_texts(self) -> Sequence[str]:
        """Prompt and right answer, a document a row."""
        return ["".join(self.pairs(row)[row["answer"]]) for row in self._rows["train"]]

    def score(self, released: Released, split: Split, *, limit: int | None = None) -> list[ItemScore]:
        """`acc` and `acc_norm` of each question."""
        return score_questions(released, self.questions(split)[:limit])

    def questions(self, split: Split) -> list[Question]:
        """The scored items of a split; the id is the hash of the row's text."""
        return [Question(row_key(row)[:16], self.pairs(row), row["answer"]) for row in self._rows[split]]

    def digest(self) -> str:
        """sha256 over all splits."""
        return content_digest(self._rows)

    @cached_property
    def _rows(self) -> dict[str, list[Row]]:
        """Rows by split; a text that is repeated stays in the first of test, selection and train that has it."""
        test = {row_key(row): row for row in self.source.rows("test", self.data_dir)}
        rest = {row_key(row): row for row in self.source.rows("train", self.data_dir)}
        used = {question_key(row) for row in test.values()}
        rest = {key: row for key, row in rest.items() if question_key(row) not in used}
        chosen = {key for key, row in rest.items() if bucket(question_key(row), SELECTION_SHARE) == 0}
        count = self.settings.max_items
        return {"train": [row for key, row in rest.items() if key not in chosen],
                "selection": [rest[key] for key in sorted(chosen)[: max(1, count * 2 // 5)]],
                "test": [test[key] for key in sorted(test)[:count]]}  # fmt: skip


def row_key(row: Row) -> str:
    """Hash of everything a row asks: its passage, question and options."""
    return text_hash("\n".join([row.get("passage", ""), row["question"], *row["choices"]]))


def question_key(row: Row) -> str:
    """Hash of a row's question (with its passage): rows that share it stay on one side of every split."""
    return text_hash("\n".join([row.get("passage", ""), row["question"]]))


class ArcEasy(ChoiceTask):
    """ARC-Easy: science questions of primary school."""

    chance: ClassVar[float | None] = 0.25
    source = sources.ARC_EASY


class ArcChallenge(ChoiceTask):
    """ARC-Challenge: science questions that retrieval does not answer."""

    chance: ClassVar[float | None] = 0.25
    source = sources.ARC_CHALLENGE


class OpenBookQA(ChoiceTask):
    """OpenBookQA: questions that need a fact and common sense."""

    chance: ClassVar[float | None] = 0.25
    source = sources.OPENBOOKQA

    def context(self, row: Row) -> str:
        """The bare stem: the options complete it."""
        return str(row["question"])


class PIQA(ChoiceTask):
    """PIQA: which of two ways of doing something works."""

    chance: ClassVar[float | None] = 0.5
    source = sources.PIQA


class HellaSwag(ChoiceTask):
    """HellaSwag: which of four endings continues the text."""

    chance: ClassVar[float | None] = 0.25
    source = sources.HELLASWAG

    def context(self, row: Row) -> str:
        """The text to continue."""
        return sources.capitalised(row["question"])


class BoolQ(ChoiceTask):
    """BoolQ: yes or no about a passage."""

    metric: ClassVar[str] = "acc"
    chance: ClassVar[float | None] = 0.5
    source = sources.BOOLQ

    def context(self, row: Row) -> str:
        """Passage and question."""
        return f"{row['passage']}\nQuestion: {row['question'].removesuffix('?')}?\nAnswer:"


class WinoGrande(ChoiceTask):
    """WinoGrande: which of two names fills the blank, by the likelihood of what follows it."""

    metric: ClassVar[str] = "acc"
    chance: ClassVar[float | None] = 0.5
    source = sources.WINOGRANDE

    def pairs(self, row: Row) -> tuple[tuple[str, str], ...]:
        """Partial evaluation (Trinh and Le 2018): the option is in the context, the rest of the sentence is scored."""
        before, _, after = row["question"].partition("_")
        return tuple((before + option, f" {after.strip()}") for option in row["choices"])
