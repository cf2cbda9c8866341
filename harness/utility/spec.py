"""What utility to measure, and what comes out. Imports no torch."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from harness.corpus import Corpus
from harness.plugins import ItemScore
from harness.settings import Settings


class UtilitySpec(Settings):
    """What the released model must still do, and on how much of it that is measured."""

    tasks: tuple[str, ...] = ("minimal_pairs",)
    """lm-eval tasks: `minimal_pairs`, `pack_*` (bound to the data pack), or any of lm-eval's own."""
    limit: int | None = Field(None, gt=0)
    """Items a task; null is all."""
    num_fewshot: int | None = Field(None, ge=0)
    """Examples in the prompt; null is the task's own number."""
    batch_size: int = Field(32, gt=0)
    """Rows a forward pass in lm-eval; fixed, because it can change the last digits."""
    perplexity_corpus: Corpus = "python_docs"
    """Held-out text of `harness.corpus` for perplexity and for the comparison with the base."""
    perplexity_tokens: int = Field(16_384, gt=0)
    """Tokens of that text, about; whole pieces are taken until this is reached."""
    perplexity_piece_bytes: int = Field(2048, gt=0)
    """Bytes of one piece: each is scored from its own beginning."""

    @field_validator("tasks", mode="before")
    @classmethod
    def _names(cls, tasks: Any) -> Any:
        """A comma list, as lm-eval takes it, or a list; a name that is empty is a slip."""
        names = [name.strip() for name in tasks.split(",")] if isinstance(tasks, str) else tasks
        if isinstance(names, (list, tuple)) and "" in names:
            raise ValueError("a name is empty; expected names, for example minimal_pairs,pack_piqa")
        return names


class TaskUtility(Settings):
    """One lm-eval task on one model."""

    metric: str
    """lm-eval's metric: `acc_norm` where the task has it, else `acc`, else the task's first."""
    score: float
    """Weighted mean over the items; accuracy in [0, 1], or minus bits per byte."""
    chance: float | None
    """Mean score of guessing among the options; null where there are none."""
    n: int
    """Scored items."""
    items: tuple[ItemScore, ...]
    """Per item; metric `utility/<task>`, item = lm-eval's document number."""


class Perplexity(Settings):
    """Perplexity on held-out text."""

    corpus: str
    """Name of the text."""
    per_token: float
    """exp of the mean negative log-likelihood a token of the model's own tokenizer."""
    bits_per_byte: float
    """The same log-likelihood by bytes of text, which other tokenizers can be compared with."""
    tokens: int
    """Tokens scored."""
    items: tuple[ItemScore, ...]
    """Per piece; metric `utility/perplexity`, score = mean log-likelihood a token (nats), weight = tokens."""


class UtilityScores(Settings):
    """What one model can do."""

    tasks: dict[str, TaskUtility]
    """By lm-eval task name."""
    perplexity: Perplexity | None
    """On held-out text; null for a classifier."""

    @property
    def items(self) -> list[ItemScore]:
        """All items of all tasks and of the perplexity."""
        text = self.perplexity.items if self.perplexity is not None else ()
        return [item for task in self.tasks.values() for item in task.items] + list(text)
