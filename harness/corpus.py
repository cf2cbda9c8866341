"""Public text by name: what locks distil on, what perplexity is measured on, what `tiny` was pretrained on.

`python_docs` comes with Python itself (`pydoc_data.topics`), the others from the data pack. Wikitext-2 is turned back
into ordinary English: the spaces round punctuation, the `@-@` marks and the marks of headings go. `<unk>` stays, for
without the sentences that hold one, half of the training text and three quarters of the test text would be gone.
Heldout documents share no paragraph with training documents.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

from harness.errors import UsageError
from harness.settings import unknown

CorpusSplit = Literal["train", "heldout"]
Corpus = Literal["python_docs", "wikitext2", "shakespeare"]
CORPORA: tuple[Corpus, ...] = get_args(Corpus)
SPEECHES = 20
"""Speeches a document of `shakespeare`."""

_TITLE = re.compile(r" = [^=].* = ")
_NOISE = re.compile(r"^\s*([*=\-~^\"'#+.])\1{3,}\s*$", re.MULTILINE)  # underlines of headings
_DETOKENISE = [(re.compile(pattern), by) for pattern, by in (
    (r" @([-,.])@ ", r"\1"), (r" ([,.;:?!%)\]])", r"\1"), (r"([(\[$£€]) ", r"\1"),
    (r" (n't|'(?:s|m|d|re|ve|ll))\b", r"\1"), (r'"\s*([^"]*?)\s*"', r'"\1"'),
    (r"(?<=\d) (\u2013) (?=\d)", r"\1"), (r"(?<=s) ' (?=\w)", "' "), (r" / ", "/"),
    (r"\s+", " "))]  # fmt: skip


def corpus(name: str, split: CorpusSplit, data_dir: Path | None) -> list[str]:
    """The documents of one split, in a fixed order, none empty.

    Args:
        name: one of `CORPORA`.
        split: `train`, or `heldout`: about a tenth, disjoint from `train` (for wikitext2 the official validation set).
        data_dir: the data pack's folder; `python_docs` needs none.

    Raises:
        UsageError: an unknown name or split, or the pack is missing.
    """
    if split not in ("train", "heldout"):
        raise UsageError(unknown(split, ("train", "heldout"), "split of a corpus"))
    if name == "python_docs":
        return _python_docs(split)
    if name == "wikitext2":
        return wikitext2({"train": "train", "heldout": "valid"}[split], data_dir)
    if name == "shakespeare":
        return _shakespeare(split, data_dir)
    raise UsageError(unknown(name, CORPORA, "corpus"))


def corpus_digest(name: str, data_dir: Path | None) -> str:
    """sha256 over the documents of both splits, hexadecimal."""
    digest = hashlib.sha256()
    for split in ("train", "heldout"):
        for document in corpus(name, split, data_dir):
            digest.update(hashlib.sha256(document.encode()).digest())
        digest.update(split.encode())
    return digest.hexdigest()


def pack_text(path: str, data_dir: Path | None, *, wanted_by: str) -> str:
    """The text of one gzip file of the data pack.

    Raises:
        UsageError: the file is not there, empty or damaged; names `wanted_by` or the file.
    """
    file = None if data_dir is None else data_dir / path
    if file is None or not file.is_file():
        raise UsageError(f"{wanted_by!r} needs {path} of the data pack: set HARNESS_DATA to its folder, not {data_dir}")
    try:
        text = gzip.decompress(file.read_bytes()).decode()
    except (EOFError, OSError, ValueError, zlib.error) as error:
        raise UsageError(f"{file} is not a whole gzip file of text: {error}") from None
    if not text.strip():
        raise UsageError(f"{wanted_by!r} needs {path} of the data pack, and {file} is empty")
    return text


def detokenise(text: str) -> str:
    """One line of tokenised English (wikitext, MRPC) as it would have been typed."""
    for pattern, by in _DETOKENISE:
        text = pattern.sub(by, text)
    return text.strip()


def wikitext2(split: str, data_dir: Path | None) -> list[str]:
    """Articles of wikitext-2, `split` being train, valid or test; a heading or a paragraph a line."""
    return wikitext_articles(pack_text(f"text/wikitext2_{split}.txt.gz", data_dir, wanted_by="wikitext2").split("\n"))


def wikitext_articles(lines: Iterable[str]) -> list[str]:
    """Lines of a wikitext file as articles of ordinary English."""
    articles: list[list[str]] = []
    for line in lines:
        if _TITLE.fullmatch(line) or not articles:
            articles.append([])
        paragraph = detokenise(line.strip(" ="))
        if paragraph:
            articles[-1].append(paragraph)
    return ["\n".join(paragraphs) for paragraphs in articles if paragraphs]


def _python_docs(split: CorpusSplit) -> list[str]:
    """Topics of the running Python's own help; split by a hash of the topic's name, so stable over versions."""
    from pydoc_data.topics import topics

    heldout = {name for name in topics if hashlib.sha256(name.encode()).digest()[0] < 26}
    seen: set[str] = set()  # topics quote each other: a paragraph counts once, and heldout goes first
    documents = {name: _fresh_paragraphs(topics[name], seen) for name in sorted(heldout)}
    if split == "train":
        documents = {name: _fresh_paragraphs(topics[name], seen) for name in sorted(set(topics) - heldout)}
    return [text for text in documents.values() if text]


def _fresh_paragraphs(text: str, seen: set[str]) -> str:
    """The paragraphs of `text` that are not in `seen` yet; adds them to it."""
    fresh = []
    for paragraph in re.split(r"\n\s*\n", _NOISE.sub("", text)):
        key = " ".join(paragraph.split())
        if key and key not in seen:
            seen.add(key)
            fresh.append(paragraph.strip("\n"))
    return "\n\n".join(fresh)


def _shakespeare(split: CorpusSplit, data_dir: Path | None) -> list[str]:
    """The first nine tenths of the plays, or the last tenth (the split that char-rnn made customary)."""
    speeches = pack_text("text/tinyshakespeare.txt.gz", data_dir, wanted_by="shakespeare").strip().split("\n\n")
    cut = len(speeches) * 9 // 10
    return list(_grouped(speeches[:cut] if split == "train" else speeches[cut:]))


def _grouped(speeches: list[str]) -> Iterable[str]:
    for start in range(0, len(speeches), SPEECHES):
        yield "\n\n".join(speeches[start : start + SPEECHES])
