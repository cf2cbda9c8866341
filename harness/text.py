"""Text from strangers on a terminal or in a page: one line, nothing hidden, no letter that only looks like another."""

from __future__ import annotations

import re
import unicodedata

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_BLANK = {"\u115f", "\u1160", "\u3164", "\uffa0", "\u2800"}
"""Letters and symbols that show as nothing."""
_LOOKALIKES = ("CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC", "LISU", "FULLWIDTH", "MATHEMATICAL",
               "LATIN LETTER")  # fmt: skip
"""First words of the names of letters that pass for ASCII ones; LATIN LETTER are the phonetic small capitals."""
_WORD = re.compile(r"[^\W_]+(?:[_.+-]+[^\W_]+)*")


def visible(text: str) -> str:
    """Text on one line without control characters.

    Control characters, bidirectional marks, line separators, blank letters and piles of accents show as escapes; so do
    letters of another alphabet in a word that has ASCII letters too (`dlr` with a Cyrillic letter is not `dlr`).
    """
    text = str(text)
    if text.isascii() and text.isprintable():
        return text
    return _WORD.sub(lambda match: _one_alphabet(match[0]), "".join(_shown(text)))


def _shown(text: str) -> list[str]:
    shown, marks = [], 0
    for char in text:
        kind = unicodedata.category(char)
        marks = marks + 1 if kind in ("Mn", "Me") else 0
        shown.append(_escape(char) if kind in _HIDDEN or char in _BLANK or marks > 2 else char)
    return shown


def _one_alphabet(word: str) -> str:
    if word.isascii() or not any(char.isascii() and char.isalpha() for char in word):
        return word
    return "".join(_escape(char) if _lookalike(char) else char for char in word)


def _lookalike(char: str) -> bool:
    return not char.isascii() and unicodedata.name(char, "").startswith(_LOOKALIKES)


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
