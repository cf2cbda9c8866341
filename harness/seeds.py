"""Seeds: one root, everything else derived by name, nothing from the clock."""

from __future__ import annotations

import hashlib


def derive(root: int, *names: str | int) -> int:
    """A seed below 2**31 that depends on the root and on every name.

    Attack and reference derive under different names, so the undefended control attacks with seeds of its own
    (design invariant 6).
    """
    text = "/".join(str(part) for part in (root, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) % 2**31
