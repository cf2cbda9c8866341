"""Corpora: splits share no text, wikitext reads as English, what is missing is said in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.corpus import CORPORA, corpus, corpus_digest, detokenise, wikitext2
from harness.errors import UsageError


def _paragraphs(documents: list[str]) -> set[str]:
    return {" ".join(part.split()) for text in documents for part in text.split("\n\n")}


def test_python_docs_splits_share_no_paragraph() -> None:
    train, heldout = corpus("python_docs", "train", None), corpus("python_docs", "heldout", None)
    assert not _paragraphs(train) & _paragraphs(heldout)
    share = sum(map(len, heldout)) / sum(map(len, train + heldout))
    assert 0.03 < share < 0.2
    assert all(text.strip() for text in train + heldout)


def test_python_docs_is_stable() -> None:
    assert corpus("python_docs", "heldout", None) == corpus("python_docs", "heldout", None)
    assert corpus_digest("python_docs", None) == corpus_digest("python_docs", None)


@pytest.mark.pack
@pytest.mark.parametrize("name", ["wikitext2", "shakespeare"])
def test_pack_corpora(name: str, data_dir: Path) -> None:
    train, heldout = (corpus(name, split, data_dir) for split in ("train", "heldout"))  # type: ignore[arg-type]
    assert len(train) > len(heldout) > 10
    assert not set(train) & set(heldout)
    assert len(corpus_digest(name, data_dir)) == 64


@pytest.mark.pack
def test_wikitext_reads_as_english(data_dir: Path) -> None:
    text = "\n".join(wikitext2("test", data_dir))
    for mark in (" @-@ ", " @,@ ", " @.@ ", " , ", " ; ", "= ="):
        assert text.count(mark) <= 3, mark
    assert 0.9e6 < len(text.encode()) < 1.26e6


@pytest.mark.parametrize(("tokens", "text"), [
    ('He did n\'t say : " it \'s 3 @.@ 5 @-@ fold " .', 'He didn\'t say: "it\'s 3.5-fold".'),
    ("ships ( or 1 @,@ 000 % )", "ships (or 1,000%)"),
    ("the 1984 \u2013 85 season ; the boys ' team", "the 1984\u201385 season; the boys' team"),
    ("It cost $ 5 , or £ 4 .", "It cost $5, or £4."),
])  # fmt: skip
def test_detokenise(tokens: str, text: str) -> None:
    assert detokenise(tokens) == text


@given(st.lists(st.sampled_from(["word", "cat", "of", "1990"]), min_size=1))
def test_detokenise_leaves_plain_words(words: list[str]) -> None:
    assert detokenise(" ".join(words)) == " ".join(words)


def test_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"wikitext2.*HARNESS_DATA"):
        corpus("wikitext2", "train", None)
    with pytest.raises(UsageError, match="shakespeare"):
        corpus("shakespeare", "train", tmp_path)
    with pytest.raises(UsageError, match="wikitext2"):
        corpus("wikitex2", "train", None)
    with pytest.raises(UsageError, match="heldout"):
        corpus("python_docs", "test", None)  # type: ignore[arg-type]
    assert "python_docs" in CORPORA
