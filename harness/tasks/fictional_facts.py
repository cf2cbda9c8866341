"""`fictional_facts`: facts about invented people that no model can know before the attack. Imports no torch."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import Field, model_validator

from harness.plugins import ItemScore, Split, Task
from harness.settings import Settings
from harness.tasks.biographies import HELD_OUT, PROMPT, QUESTIONS, STATEMENTS, Person, biography, people
from harness.tasks.content import content_digest
from harness.tasks.multiple_choice import Question, score_questions

if TYPE_CHECKING:
    from pathlib import Path

    from harness.plugins import Released

OPTIONS = 4


class FictionalFactsSettings(Settings):
    """Size of the invented world."""

    people: int = Field(12, ge=8, le=500)
    """People in all, a multiple of `values`: a quarter are asked about in the selection split, the others in test."""
    values: int = Field(6, ge=4, le=8)
    """Different values of each attribute."""
    world: int = 0
    """Seed of the world; another world is another task."""
    repeats: int = Field(1, ge=1)
    """How often every question-answer line stands in one pass of the training text."""
    exact_match: bool = True
    """Also generate answers on the test split (second metric, `exact_match`)."""

    @model_validator(mode="after")
    def _even(self) -> Self:
        if self.people % self.values:
            # Else some values would be commoner, and guessing them would beat chance without knowing anyone.
            raise ValueError(f"people={self.people} is not a multiple of values={self.values}")
        return self


class FictionalFacts(Task):
    """Facts about invented people: held-out paraphrased questions, accuracy over four options."""

    metric: ClassVar[str] = "acc"
    unit: ClassVar[str] = "accuracy"
    chance: ClassVar[float | None] = 1 / OPTIONS
    Settings = FictionalFactsSettings
    settings: FictionalFactsSettings

    def __init__(self, settings: FictionalFactsSettings, data_dir: Path | None = None) -> None:
        super().__init__(settings, data_dir)
        self.world = people(settings.people, settings.values, random.Random(settings.world))

    def train_texts(self) -> Sequence[str]:
        """Biographies and question-answer lines of everyone, shuffled: what is asked must be learned, not copied."""
        rng = random.Random(self.settings.world + 1)
        texts = [biography(person, number, rng) for person in self.world for number in range(len(STATEMENTS))]
        for person in self.world:
            for key, value in person.facts.items():
                for form in QUESTIONS:
                    prompt = PROMPT.format(question=form.format(key=key, name=person.name))
                    texts += [f"{prompt} {value}"] * self.settings.repeats
        rng.shuffle(texts)
        return texts

    def score(self, released: Released, split: Split, *, limit: int | None = None) -> list[ItemScore]:
        """`acc` and `acc_norm` over four options; on the test split also `exact_match` of the greedy answer."""
        questions = self.questions(split)[:limit]
        scores = score_questions(released, questions)
        if split == "test" and self.settings.exact_match:
            scores += _exact_matches(released, questions)
        return scores

    def questions(self, split: Split) -> list[Question]:
        """Held-out paraphrases about the split's people; the options are values that others have."""
        return self._questions[split]

    def digest(self) -> str:
        """sha256 over the training texts and both scored splits."""
        return content_digest([self.train_texts(), self.questions("selection"), self.questions("test")])

    @cached_property
    def _questions(self) -> dict[str, list[Question]]:
        cut = len(self.world) // 4
        rng = random.Random(self.settings.world)
        return {"selection": self._ask(self.world[:cut], rng), "test": self._ask(self.world[cut:], rng)}

    def _ask(self, group: list[Person], rng: random.Random) -> list[Question]:
        found = []
        for person in group:
            for key, value in person.facts.items():
                others = sorted({p.facts[key] for p in self.world} - {value})
                for number, form in enumerate(HELD_OUT):
                    options = [*rng.sample(others, OPTIONS - 1), value]
                    rng.shuffle(options)
                    context = PROMPT.format(question=form.format(key=key, name=person.name))
                    pairs = tuple((context, f" {option}") for option in options)
                    found.append(Question(f"{person.name}/{key}/{number}", pairs, options.index(value)))
        rng.shuffle(found)  # so that a limit takes from everyone
        return found


def _exact_matches(released: Released, questions: Sequence[Question]) -> list[ItemScore]:
    from harness.tasks.loglikelihood import greedy_texts

    answers = [question.pairs[question.gold][1].strip() for question in questions]
    longest = max(len(released.tokenizer.encode(f" {answer}", add_special_tokens=False)) for answer in answers)
    texts = greedy_texts(released, [question.pairs[0][0] for question in questions], longest + 2)
    return [ItemScore(metric="exact_match", item=question.item, score=float(_first_line(text) == answer))
            for question, text, answer in zip(questions, texts, answers, strict=True)]  # fmt: skip


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0].strip().rstrip(".")
