"""Language modelling on text of the data pack: `wikitext2` and `shakespeare`. Imports no torch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from harness.plugins import ItemScore, Split, Task
from harness.settings import Settings
from harness.tasks.content import bucket, content_digest, drop_repeats, text_hash
from harness.tasks.lm_scoring import METRIC, Chunk, chunks, score_chunks
from harness.tasks.pack import Piece, Source

if TYPE_CHECKING:
    from harness.plugins import Released

WIKITEXT2 = Source(
    name="wikitext2", hub="Salesforce/wikitext", hub_config="wikitext-2-v1",
    train=Piece(file="text/wikitext2_train.txt.gz", hub_split="train"),
    selection=Piece(file="text/wikitext2_valid.txt.gz", hub_split="validation"),
    test=Piece(file="text/wikitext2_test.txt.gz", hub_split="test"),
)  # fmt: skip
SHAKESPEARE_FILE = "text/tinyshakespeare.txt.gz"
SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHAKESPEARE = Source(
    name="shakespeare", hub="text", hub_config=SHAKESPEARE_URL,
    train=Piece(file=SHAKESPEARE_FILE, hub_split="train"), test=Piece(file=SHAKESPEARE_FILE, hub_split="train"),
)  # fmt: skip
SPEECHES = 20
"""Speeches a document of `shakespeare`."""


class TextSettings(Settings):
    """Sizes of the splits."""

    train_bytes: int = Field(1_000_000, gt=0)
    """Bytes of training text, from the beginning of the training split."""
    chunk_bytes: int = Field(512, gt=0)
    """Bytes of one scored item."""
    max_items: int = Field(200, gt=0)
    """Items of the test split; the selection split has half as many."""


class TextTask(Task):
    """Chunks of documents, scored in minus bits per byte."""

    metric: ClassVar[str] = METRIC
    unit: ClassVar[str] = "-bits/byte"
    needs_pack: ClassVar[bool] = True
    Settings = TextSettings
    settings: TextSettings

    @abstractmethod
    def documents(self, split: str) -> list[str]:
        """Documents of `train`, `selection` or `test`."""

    def train_texts(self) -> Sequence[str]:
        """Documents of the training split, about `train_bytes` in all."""
        return self._splits[0]

    def score(self, released: Released, split: Split, *, limit: int | None = None) -> list[ItemScore]:
        """Minus bits per byte of fixed chunks of held-out documents."""
        return score_chunks(released, self.items(split)[:limit])

    def items(self, split: Split) -> list[Chunk]:
        """The chunks of a split, spread over its documents by a stable hash."""
        return self._splits[1][split]

    def digest(self) -> str:
        """sha256 over all splits."""
        return content_digest(self._splits)

    @cached_property
    def _splits(self) -> tuple[list[str], dict[str, list[Chunk]]]:
        train: list[str] = []
        total = 0
        for document in self.documents("train"):
            if total >= self.settings.train_bytes:
                break
            train.append(document)
            total += len(document.encode())
        seen: set[str] = set()
        drop_repeats((line for text in train for line in text.splitlines() if line.strip()), seen)
        return train, {"test": self._cut("test", 1, seen), "selection": self._cut("selection", 2, seen)}

    def _cut(self, split: str, share: int, seen: set[str]) -> list[Chunk]:
        """The split's items: chunks whose lines are mostly new; their own lines are old for the next split."""
        found: list[Chunk] = []
        size = self.settings.chunk_bytes
        pieces = [c for i, text in enumerate(self.documents(split)) for c in chunks(f"{split}/{i}", text, size)]
        for piece in sorted(pieces, key=lambda c: bucket(c.item, 2**40)):
            lines = {text_hash(line) for line in piece.text.splitlines() if line.strip()}
            if len(found) < max(1, self.settings.max_items // share) and 3 * len(lines & seen) <= len(lines):
                found.append(piece)
        drop_repeats((line for piece in found for line in piece.text.splitlines() if line.strip()), seen)
        return found


class WikiText2(TextTask):
    """Language modelling on WikiText-2, its official splits, as ordinary English (minus bits per byte)."""

    def documents(self, split: str) -> list[str]:
        """Articles of the official train, validation (selection) or test split."""
        from harness.corpus import wikitext_articles

        lines: list[str] = []
        size = 0
        for row in WIKITEXT2.rows(split, self.data_dir):
            lines.append(row["text"].rstrip("\n"))
            size += len(lines[-1])
            if split == "train" and size > 2 * self.settings.train_bytes:  # turning all of it into English takes long
                break
        return wikitext_articles(lines)


class Shakespeare(TextTask):
    """Language modelling on the plays of tinyshakespeare (minus bits per byte)."""

    def documents(self, split: str) -> list[str]:
        """The first eight tenths of the speeches, the ninth tenth (selection) or the last (test)."""
        text = "\n".join(row["text"].rstrip("\n") for row in SHAKESPEARE.rows("train", self.data_dir))
        speeches = text.strip().split("\n\n")
        tenths = {"train": (0, 8), "selection": (8, 9), "test": (9, 10)}[split]
        first, last = (len(speeches) * tenth // 10 for tenth in tenths)
        chosen = speeches[first:last]
        return ["\n\n".join(chosen[i : i + SPEECHES]) for i in range(0, len(chosen), SPEECHES)]
