"""The resolved spec of a cell as text that `harness run --config` reads back to the same cell.

It is YAML in flow style with JSON's quotes, one section a line. Python writes it and the page only joins its lines:
JavaScript would turn 128.0 into 128, and the cell's id hashes the difference.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from harness.records.record import Record

HEAD, TAIL = "harness run --config /dev/stdin <<'SPEC'", "SPEC"


def command(record: Record) -> str:
    """One command for a shell; what is between its first line and its last can also be saved as a file."""
    return "\n".join([HEAD, "{", *sections(record), "}", TAIL])


def sections(record: Record) -> list[str]:
    """The lines between the brackets, a section each; equal ones are equal settings."""
    return [section(key, value) for key, value in record.spec.items()]


def section(key: str, value: Any) -> str:
    """The line of one of them."""
    return f"  {flow(key)}: {flow(value)},"


def flow(value: Any) -> str:
    """A JSON value as YAML on one line of printable ASCII.

    A number such as 1e-08 gets the point that YAML 1.1 asks for, and a character beyond ASCII is written as YAML's own
    escape: JSON's pairs of surrogates mean something else there.
    """
    if isinstance(value, str):
        return f'"{_ODD.sub(lambda match: _escaped(match[0]), value)}"'
    if isinstance(value, (dict, Mapping)):  # a dict is one, but that takes long to find out
        return "{" + ", ".join([f"{flow(str(key))}: {flow(item)}" for key, item in value.items()]) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(flow, value)) + "]"
    if type(value) is int:
        return repr(value)
    text = _STRICT.encode(value)
    return text.replace("e", ".0e") if isinstance(value, float) and "e" in text and "." not in text else text


_STRICT = json.JSONEncoder(allow_nan=False)
_ODD = re.compile(r'[^ -~]|["\\]')
"""What does not stand for itself between quotes."""


def _escaped(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    code = ord(char)
    return f"\\U{code:08x}" if code > 0xFFFF else f"\\u{code:04x}"
