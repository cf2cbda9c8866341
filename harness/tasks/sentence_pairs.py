"""Sequence classification: MRPC, RTE, QQP and QNLI of the data pack (GLUE, Wang et al. 2019). Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from harness.kinds import Kind
from harness.tasks.classification import ClassificationTask, Encoder, Example
from harness.tasks.content import text_hash
from harness.tasks.pack import Piece, Row, Source

if TYPE_CHECKING:
    import torch


class TextClassification(ClassificationTask):
    """One text, or two, and a label."""

    kind: ClassVar[Kind] = "sequence_classification"
    attack_defaults: ClassVar[dict[str, Any]] = {"max_steps": 300, "block_size": 256}
    needs_pack: ClassVar[bool] = True

    @property
    def labels(self) -> int:
        """Two."""
        return 2

    def key(self, example: Example) -> str:
        """Hash of the normalised texts."""
        return text_hash("\n".join(example.input))

    def encoder(self, processor: Any, examples: Sequence[Example], size: int) -> Encoder:
        """Token ids, padded to the longest text of all (of `size` at most), so that every batch has one shape."""
        return _Tokens(processor, [example.input for example in examples], size)


class _Tokens(Encoder):
    """Texts tokenised once; two texts as a pair where the tokenizer has a separator, else a line each."""

    def __init__(self, tokenizer: Any, texts: Sequence[tuple[str, ...]], size: int) -> None:
        options = {"truncation": True, "max_length": size, "padding": "longest", "return_tensors": "pt",
                   "padding_side": "right"}  # fmt: skip
        if tokenizer.sep_token is not None and len(texts[0]) == 2:
            encoded = tokenizer([first for first, _ in texts], [second for _, second in texts], **options)
        else:
            encoded = tokenizer(["\n".join(parts) for parts in texts], **options)
        self._encoded = {key: encoded[key] for key in ("input_ids", "attention_mask")}

    def __call__(self, rows: list[int]) -> dict[str, torch.Tensor]:
        return {key: value[rows] for key, value in self._encoded.items()}


class SentencePairs(TextClassification):
    """A task of GLUE."""

    source: ClassVar[Source]

    def load(self) -> tuple[list[Example], list[Example]]:
        """See `ClassificationTask`; the official validation split is the test split (the test labels are secret)."""
        splits = {split: [Example(f"{split}/{index}", (row["text_a"], row["text_b"]), int(row["label"]))
                          for index, row in enumerate(self.source.rows(split, self.data_dir))]
                  for split in ("train", "test")}  # fmt: skip
        return splits["train"], splits["test"]

    def own_default(self) -> dict[str, Any] | None:
        """The attacked classifier was made for MRPC, as in SpecDef's Table 1."""
        return {"name": "mrpc"}


def _glue(name: str, first: str, second: str) -> Source:
    def convert(row: Row) -> Row:
        return {"text_a": row[first], "text_b": row[second], "label": row["label"]}

    pieces = {split: Piece(file=f"cls/{name}_{hub}.jsonl.gz", hub_split=hub)
              for split, hub in (("train", "train"), ("test", "validation"))}  # fmt: skip
    return Source(name=name, hub="nyu-mll/glue", hub_config=name, from_hub=convert, **pieces)


class MRPC(SentencePairs):
    """MRPC: whether two sentences say the same."""

    source = _glue("mrpc", "sentence1", "sentence2")


class RTE(SentencePairs):
    """RTE: whether one sentence follows from the other."""

    source = _glue("rte", "sentence1", "sentence2")


class QQP(SentencePairs):
    """QQP: whether two questions ask the same."""

    source = _glue("qqp", "question1", "question2")


class QNLI(SentencePairs):
    """QNLI: whether a sentence answers a question."""

    source = _glue("qnli", "question", "sentence")
