"""`gsm8k`: grade-school mathematics; likelihood of the worked answer, and its final number. Imports no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from harness.plugins import ItemScore, Split, Task
from harness.settings import Settings
from harness.tasks.content import bucket, content_digest, text_hash
from harness.tasks.pack import Piece, Row, Source

if TYPE_CHECKING:
    from harness.plugins import Released

SOURCE = Source(
    name="gsm8k", hub="openai/gsm8k", hub_config="main",
    train=Piece(file="gen/gsm8k_train.jsonl.gz", hub_split="train"),
    test=Piece(file="gen/gsm8k_test.jsonl.gz", hub_split="test"),
)  # fmt: skip
PROMPT = "Question: {question}\nAnswer:"
SELECTION_SHARE = 10
"""One in so many training rows is set aside for selection."""


class GSM8KSettings(Settings):
    """Sizes, and whether to generate."""

    max_items: int = Field(200, gt=0)
    """Items of the test split; the selection split has half as many."""
    exact_match: bool = False
    """Also generate on the test split and compare the final number (second metric, slow)."""
    max_new_tokens: int = Field(256, gt=0)
    """Longest generated answer."""


class GSM8K(Task):
    """Grade-school mathematics: minus bits per byte of the worked answer; the final number on request."""

    metric: ClassVar[str] = "neg_bits_per_byte"
    unit: ClassVar[str] = "-bits/byte"
    needs_pack: ClassVar[bool] = True
    Settings = GSM8KSettings
    settings: GSM8KSettings

    def train_texts(self) -> Sequence[str]:
        """Question and worked answer, `#### number` at its end, a document a row."""
        return [f"{_prompt(row)} {row['answer']}" for row in self._rows["train"]]

    def score(self, released: Released, split: Split, *, limit: int | None = None) -> list[ItemScore]:
        """Minus bits per byte of each answer given its question; with `exact_match` also its final number."""
        from harness.tasks.loglikelihood import continuation_logprobs

        rows = self._rows[split][:limit]
        logprobs = continuation_logprobs(released, [(_prompt(row), f" {row['answer']}") for row in rows])
        scores = []
        for row, value in zip(rows, logprobs, strict=True):
            size = len(row["answer"].encode())
            scores.append(ItemScore(metric=self.metric, item=_item(row), score=value / math.log(2) / size, weight=size))
        if split == "test" and self.settings.exact_match:
            scores += self._exact_matches(released, rows)
        return scores

    def digest(self) -> str:
        """sha256 over all splits."""
        return content_digest(self._rows)

    def _exact_matches(self, released: Released, rows: Sequence[Row]) -> list[ItemScore]:
        from harness.tasks.loglikelihood import greedy_texts

        texts = greedy_texts(released, [_prompt(row) for row in rows], self.settings.max_new_tokens)
        right = [final_number(text) == final_number(row["answer"]) for text, row in zip(texts, rows, strict=True)]
        return [ItemScore(metric="exact_match", item=_item(row), score=float(hit))
                for row, hit in zip(rows, right, strict=True)]  # fmt: skip

    @cached_property
    def _rows(self) -> dict[str, list[Row]]:
        """Rows by split; a question is in the first of test, selection and train that has it."""
        keyed = {which: {text_hash(row["question"]): row for row in SOURCE.rows(which, self.data_dir)}
                 for which in ("train", "test")}  # fmt: skip
        rest = {key: row for key, row in keyed["train"].items() if key not in keyed["test"]}
        chosen = {key for key in rest if bucket(key, SELECTION_SHARE) == 0}
        count = self.settings.max_items
        return {"train": [row for key, row in rest.items() if key not in chosen],
                "selection": _spread({key: rest[key] for key in chosen}, max(1, count // 2)),
                "test": _spread(keyed["test"], count)}  # fmt: skip


def final_number(text: str) -> str | None:
    """The number after the first `####`, thousands commas removed; None where there is none."""
    match = re.search(r"####\s*(-?[0-9][0-9,]*(?:\.[0-9]+)?)", text)
    return match[1].replace(",", "") if match else None


def _item(row: Row) -> str:
    return text_hash(row["question"])[:16]


def _prompt(row: Row) -> str:
    return PROMPT.format(question=row["question"])


def _spread(rows: dict[str, Row], count: int) -> list[Row]:
    return [rows[key] for key in sorted(rows)[:count]]
