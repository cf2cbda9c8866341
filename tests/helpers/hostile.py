"""Texts, numbers and documents that strangers send: one list for the tests of every reader and every output format.

`STRINGS` go wherever a record or spec has a name or a reason. Names say what each tries.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

STRINGS: dict[str, str] = {
    # terminals
    "ansi colour": "\x1b[31mdlr\x1b[0m",
    "ansi erase line": "lora\x1b[2K\rfull",
    "ansi window title": "\x1b]0;owned\x07",
    "ansi hyperlink": "\x1b]8;;https://evil.example\x1b\\dlr\x1b]8;;\x1b\\",
    "c1 control": "\x9b31mdlr",
    "backspaces": "bad\b\b\bgood",
    "null": "dlr\x00.json",
    "bell and delete": "\x07\x7f",
    "carriage return": "0 mismatches\rx",
    "newline": "dlr\n| 1 | fake | 1.00 |",
    "line separator": "dlr\u2028fake\u2029row\x85x",
    "tab and vertical tab": "a\tb\vc\fd",
    # look-alikes and what hides
    "cyrillic a": "lor\u0430",
    "greek omicron": "l\u03bfra",
    "fullwidth": "\uff44lr",
    "mathematical": "\U0001d41d\U0001d425r",
    "bidi override": "dlr\u202etxt.exe",
    "bidi isolate": "\u2066dlr\u2069",
    "zero width": "d\u200bl\u200cr\u200d",
    "soft hyphen": "d\u00adlr",
    "byte-order mark": "\ufeffdlr",
    "hangul filler": "dlr\u3164",
    "tag characters": "dlr\U000e0041\U000e0042",
    "piled accents": "d" + "\u0301" * 200 + "lr",
    "private use": "\ue000dlr",
    "non-character": "dlr\uffff",
    # pages
    "script": "<script>alert(1)</script>",
    "image handler": '"><img src=x onerror=alert(1)>',
    "single quotes": "' onmouseover='alert(1)",
    "comment end": "--><svg/onload=alert(1)>",
    "script end in json": "</script><script>alert(1)//",
    "javascript link": "javascript:alert(1)",
    "data link": "data:text/html;base64,PHNjcmlwdD4=",
    "entity": "&lt;b&gt; &amp; &#x3c;",
    "template": "{{7*7}} ${7*7} {% raw %}",
    "css": "</style><style>*{display:none}",
    # markdown
    "table cell end": "dlr | 1.00 | fake",
    "markdown link": "[click](javascript:alert(1))",
    "markdown image": "![x](https://evil.example/track.png)",
    "markdown autolink": "<https://evil.example> https://evil.example",
    "markdown code": "`a` ``b`` ```\nc",
    "markdown heading": "# heading",
    "markdown html": "<details open ontoggle=alert(1)>",
    # latex
    "latex input": r"\input{/etc/passwd}",
    "latex write18": r"\immediate\write18{id}",
    "latex special": r"$x^2_3$ & % # ~ { } \\",
    # spreadsheets
    "formula": '=HYPERLINK("https://evil.example","x")',
    "formula command": "=cmd|' /C calc'!A0",
    "formula plus": "+1+1",
    "formula minus": "-1+1",
    "formula at": "@SUM(1+1)",
    "formula behind blanks": "  =1+1",
    "formula behind tab": "\t=1+1",
    "formula fullwidth": "\uff1d1+1",
    "csv": 'a,"b"\r\n=1+1',
    # paths and names
    "parent folders": "../../../../etc/passwd",
    "absolute path": "/etc/passwd",
    "windows path": "..\\..\\windows\\system32",
    "percent encoded": "%2e%2e%2f%00",
    "hidden": ".ssh",
    "empty": "",
    "blanks": "   ",
    "dot": ".",
    "option": "--output=/tmp/x",
    "shell": "$(id); `id` | id & id",
    # sizes and readers
    "long": "x" * 100_000,
    "long word list": "word " * 5_000,
    "astral": "\U0001f512" * 50,
    "format string": "%s%n%x {0.__class__} {record}",
    "python": "__import__('os').system('id')",
    "yaml tag": "!!python/object/apply:os.system ['id']",
    "yaml alias": "*a",
    "number": "1e400",
    "nan": "NaN",
    "null word": "null",
}
"""By what they try."""

SURROGATE = "dlr\ud800"
"""JSON can spell it, UTF-8 cannot."""

NUMBERS: list[Any] = [0, -0.0, -1, 1e-320, 1e99, -1e99, 1e100, 2**53 + 1, 2**63 - 1, -(2**63), True, "1", None, [], {}]
"""Each in place of any number."""

JSON: dict[str, bytes] = {
    "empty": b"",
    "not json": b"{'a': 1}",
    "cut": b'{"a": [1, 2',
    "trailing": b'{"a": 1} {"b": 2}',
    "key twice": b'{"a": 1, "a": 2}',
    "key twice by escape": b'{"a": 1, "\\u0061": 2}',
    "key twice, deep": b'{"x": [{"a": 1, "a": 1}]}',
    "nan": b'{"a": NaN}',
    "infinity": b'{"a": -Infinity}',
    "overflow": b'{"a": 1e400}',
    "large": b'{"a": 1e308}',
    "large whole": b'{"a": ' + b"9" * 400 + b"}",
    "huge whole": b'{"a": ' + b"9" * 5000 + b"}",
    "deep lists": b"[" * 100_000,
    "deep lists, whole": b"[" * 5_000 + b"]" * 5_000,
    "deep objects": b'{"a":' * 500 + b"1" + b"}" * 500,
    "just too deep": b"[" * 70 + b"]" * 70,
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "byte-order mark": b'\xef\xbb\xbf{"a": 1}',
    "latin-1": b'{"a": "\xe9"}',
    "null byte": b'{"a": "\x00"}',
}
"""Documents that no strict reader takes."""

_BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)

YAML: dict[str, str] = {
    "bomb": _BOMB,
    "alias into itself": "a: &a [*a]",
    "mapping into itself": "a: &a {b: *a}",
    "key twice": "a: 1\na: 2",
    "key twice, quoted": "a: 1\n'a': 2",
    "key twice, deep": "x: [{a: 1, a: 1}]",
    "merged bomb": "a: &a {k: 1}\n" + "".join(f"b{n}: &b{n} [{', '.join(['*a' if n == 0 else f'*b{n - 1}'] * 30)}]\n"
                                            for n in range(5)),
    "deep": "[" * 5_000,
    "deep, whole": "[" * 500 + "]" * 500,
    "deep mappings": "{a: " * 1_000,
    "deep blocks": "- " * 5_000 + "x",
    "deep keys": "? " * 5_000 + "x",
    "deep by indentation": "".join(" " * depth + "a:\n" for depth in range(1_000)),
    "python object": "a: !!python/object/apply:os.system ['id']",
    "python name": "a: !!python/name:os.system",
    "unknown tag": "a: !secret x",
    "undefined alias": "a: *b",
    "list key": "[a, b]: 1",
    "date by tag": "a: !!timestamp 2001-01-01",
    "no key": "null: 1",
    "set": "a: !!set {x}",
    "ordered": "a: !!omap [x: 1]",
    "huge whole": "a: " + "9" * 5_000,
    "two documents": "a: 1\n---\nb: 2",
    "control character": "a: \x01",
    "bad binary": "a: !!binary '*'",
}  # fmt: skip
"""Documents that are refused."""


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of everything inside a JSON value: leaves, lists and objects."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield (*path, key)
        yield from places(part, (*path, key))


def at(value: Any, path: tuple[Any, ...]) -> Any:
    """What is there."""
    for part in path:
        value = value[part]
    return value
