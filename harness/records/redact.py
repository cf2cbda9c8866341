"""No secrets in what is written: tokens of the environment, passwords in addresses, and where the user's files are.

A record, its log and every error line pass through here. What is recognised: the values of environment variables whose
name says that they are secret, the forms of widely used access tokens, user:password in an address, and absolute paths
(the home folder as `~`, the files of a traceback by their last two parts).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "[redacted]"
SHORTEST = 8
"""Shorter values are not looked for: they would be found in ordinary words."""
_SECRET_WORDS = {"TOKEN", "TOKENS", "SECRET", "SECRETS", "PASSWORD", "PASSWD", "PASSPHRASE", "PAT", "KEY", "APIKEY",
                 "CREDENTIAL", "CREDENTIALS", "AUTHORIZATION", "COOKIE"}  # fmt: skip
_TOKENS = re.compile(
    r"\b(hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|sk-[\w-]{20,}"
    r"|xox[abprs]-[\w-]{10,}|AKIA[0-9A-Z]{16}|eyJ[\w-]{6,}\.eyJ[\w-]{6,}\.[\w-]{6,})|(?i:(?<=bearer )[\w.~+/=-]{8,})"
)
_LOGIN = re.compile(r"(?<=://)[^/\s@'\"]+:[^/\s@'\"]+(?=@)")
_FRAME = re.compile(r'(?<=File ")[^"\n]*/(?=[^"/\n]+/[^"/\n]+")')


def redact(text: str, environment: Mapping[str, str] | None = None, *, paths: bool = True) -> str:
    """`text` without secrets.

    Args:
        text: any text.
        environment: whose secrets; default: this process's.
        paths: also shorten absolute paths of this user; not where a path is what somebody typed.
    """
    environment = os.environ if environment is None else environment
    for value in secrets(environment):
        text = text.replace(value, HIDDEN)
    text = _LOGIN.sub(HIDDEN, _TOKENS.sub(HIDDEN, text))
    if not paths:
        return text
    text, home = _FRAME.sub("", text), environment.get("HOME", "").rstrip("/")
    return re.sub(rf"(?<![\w/.]){re.escape(home)}(?=/)", "~", text) if home else text


def redact_tree(value: Any, environment: Mapping[str, str] | None = None, *, paths: bool = True) -> Any:
    """A JSON value with every text in it redacted, keys included."""
    if isinstance(value, str):
        return redact(value, environment, paths=paths)
    if isinstance(value, Mapping):
        return {redact(str(key), environment, paths=paths): redact_tree(part, environment, paths=paths)
                for key, part in value.items()}  # fmt: skip
    return [redact_tree(part, environment, paths=paths) for part in value] if isinstance(value, list) else value


def secrets(environment: Mapping[str, str]) -> list[str]:
    """Values that must not be written, longest first (one may contain another)."""
    named = {value.strip() for name, value in environment.items() if _SECRET_WORDS & set(name.upper().split("_"))}
    return sorted((value for value in named if len(value) >= SHORTEST and "/" not in value[:1]), key=len, reverse=True)
