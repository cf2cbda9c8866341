"""What text is the same text, what a task's content hashes to, and how splits are carved. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any


def normalised(text: str) -> str:
    """Lower case, words and digits only, single spaces: two texts with the same result count as the same item."""
    return " ".join(re.findall(r"\w+", text.lower()))


def text_hash(text: str) -> str:
    """sha256 (hex) of the normalised text: the key by which splits are kept apart."""
    return hashlib.sha256(normalised(text).encode()).hexdigest()


def content_digest(content: Any) -> str:
    """sha256 (hex) over any JSON value, independent of key order."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def bucket(key: str, buckets: int, salt: str = "") -> int:
    """A stable bucket of `key` in `range(buckets)`; the same on every machine and Python."""
    return int(hashlib.sha256(f"{salt}:{key}".encode()).hexdigest()[:12], 16) % buckets


def drop_repeats(texts: Iterable[str], seen: set[str]) -> list[int]:
    """Indices of the texts that are new; `seen` holds hashes of earlier texts and is extended."""
    kept: list[int] = []
    for index, text in enumerate(texts):
        key = text_hash(text)
        if key not in seen:
            seen.add(key)
            kept.append(index)
    return kept
