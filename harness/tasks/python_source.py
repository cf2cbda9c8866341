"""`python_source`: language modelling on the standard library's own source, split by module. Imports no torch."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from harness.errors import UsageError
from harness.plugins import ItemScore, Split, Task
from harness.settings import Settings
from harness.tasks.content import bucket, content_digest
from harness.tasks.lm_scoring import METRIC, Chunk, chunks, score_chunks

if TYPE_CHECKING:
    from harness.plugins import Released

SKIPPED_DIRECTORIES = {"test", "tests", "idle_test", "idlelib", "lib2to3", "encodings", "pydoc_data",
                       "turtledemo", "site-packages", "dist-packages", "lib-dynload", "__pycache__", "__phello__",
                       "_bundled"}  # fmt: skip
SKIPPED_MODULES = {"antigravity", "this", "keyword", "token", "opcode", "stringprep", "sre_constants", "__hello__",
                   "html.entities", "msilib.schema", "msilib.sequence", "email.quoprimime"}  # fmt: skip
BUCKETS = 10
SPLITS = {"train": range(0, 6), "selection": range(6, 7), "test": range(7, 10)}


class PythonSourceSettings(Settings):
    """Sizes of the splits."""

    train_bytes: int = Field(1_000_000, gt=0)
    """Bytes of training text."""
    document_bytes: int = Field(16_384, gt=0)
    """Bytes of one training document: a long module is cut at a line end, so that none dominates."""
    chunk_bytes: int = Field(512, gt=0)
    """Bytes of one scored item."""
    max_items: int = Field(200, gt=0)
    """Items of the test split; the selection split has half as many."""


class PythonSource(Task):
    """Language modelling on the standard library's source (minus bits per byte), split by module."""

    metric: ClassVar[str] = METRIC
    unit: ClassVar[str] = "-bits/byte"

    Settings = PythonSourceSettings
    settings: PythonSourceSettings

    def train_texts(self) -> Sequence[str]:
        """Beginnings of whole modules, about `train_bytes` in all."""
        return [text for _, text in self._train]

    def score(self, released: Released, split: Split, *, limit: int | None = None) -> list[ItemScore]:
        """Minus bits per byte of fixed chunks of modules that training never shows."""
        return score_chunks(released, self.items(split)[:limit])

    def items(self, split: Split) -> list[Chunk]:
        """The chunks of a split, spread over its modules by a stable hash."""
        return self._items[split]

    def digest(self) -> str:
        """sha256 over all splits; another Python version has another standard library and another digest."""
        return content_digest([self._train, self._items["selection"], self._items["test"]])

    @cached_property
    def _train(self) -> list[tuple[str, str]]:
        documents: list[tuple[str, str]] = []
        total = 0
        for name, text in _modules("train"):
            if total >= self.settings.train_bytes:
                break
            document = next(chunks(name, text, self.settings.document_bytes)).text
            documents.append((name, document))
            total += len(document.encode())
        return documents

    @cached_property
    def _items(self) -> dict[str, list[Chunk]]:
        known = {line for _, text in self._train for line in _long_lines(text)}
        size, count = self.settings.chunk_bytes, self.settings.max_items
        found: dict[str, list[Chunk]] = {}
        for split, wanted in (("selection", max(1, count // 2)), ("test", count)):
            pieces = [c for name, text in _modules(split) for c in chunks(name, text, size) if _is_new(c.text, known)]
            found[split] = sorted(pieces, key=lambda c: bucket(c.item, 2**40))[:wanted]
            known |= {line for chunk in found[split] for line in _long_lines(chunk.text)}
        return found


def _modules(split: str) -> Iterator[tuple[str, str]]:
    """(dotted name, source) of the split's modules in hash order; a package and its private helper stay together."""
    named = _source_files()
    for name in sorted(named, key=lambda name: bucket(name, 2**40)):
        family = name.split(".")[0].strip("_").removeprefix("py")
        if bucket(family, BUCKETS) not in SPLITS[split]:
            continue
        try:
            text = named[name].read_text(encoding="utf-8")
        except UnicodeDecodeError:  # a module in another encoding is not worth a decoder
            continue
        if text.strip():
            yield name, text


@cache
def _source_files() -> dict[str, Path]:
    root = Path(sysconfig.get_path("stdlib"))
    found: dict[str, Path] = {}
    for folder, directories, files in os.walk(root):
        # Pruned, not filtered: site-packages below the standard library can be huge.
        directories[:] = [d for d in directories if d not in SKIPPED_DIRECTORIES and not d.startswith("config-")]
        for path in (Path(folder) / file for file in files if file.endswith(".py")):
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            if name not in SKIPPED_MODULES and not name.startswith("_sysconfigdata"):
                found[name] = path
    if not found:
        raise UsageError(f"python_source needs the standard library's source files; there are none in {str(root)!r}")
    return found


def _long_lines(text: str) -> set[str]:
    return {line.strip() for line in text.splitlines() if len(line.strip()) >= 24}


def _is_new(text: str, known: set[str]) -> bool:
    """Whether at most a third of the chunk's long lines (licences, copied helpers) also occur in `known`."""
    lines = _long_lines(text)
    return bool(lines) and 3 * len(lines & known) <= len(lines)
