"""The package that `harness new` writes: a plug-in that works, its entry point, and its conformance tests."""

from __future__ import annotations

import keyword
import re
from importlib.resources import files
from string import Template

from harness.errors import UsageError

KINDS = ("defense", "attack", "task")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_EXTRA = {"defense": "\n    seeded = False  # the example draws no random numbers"}
_ROOT = {"pyproject.toml": "pyproject.toml", "README.md": "README.md", "gitignore": ".gitignore"}


def render(kind: str, name: str) -> dict[str, str]:
    """The files of a new plug-in package: text by path.

    Args:
        kind: one of `KINDS`.
        name: of the plug-in, as `harness list` will show it: lower-case letters, digits and underscores.

    Raises:
        UsageError: the name cannot be one.
    """
    if not _NAME.fullmatch(name) or name.endswith("_") or keyword.iskeyword(name):
        raise UsageError(f"name {name!r}: use lower-case letters, digits and underscores, a letter first, at most 40, "
                         "and no word of Python, for example my_lock")  # fmt: skip
    package = f"lockbench_{name}"
    words = {"name": name, "kind": kind, "package": package, "distribution": package.replace("_", "-"),
             "cls": "".join(part.capitalize() for part in name.split("_")), "kinds": f"{kind}s",
             "Kind": kind.capitalize(), "extra": _EXTRA.get(kind, ""),
             "article": "an" if kind == "attack" else "a"}  # fmt: skip
    words["command"] = {"defense": f"harness run --defense {name} --attack lora",
                        "attack": f"harness run --defense dlr --attack {name}",
                        "task": f"harness run --defense dlr --attack lora --task {name}"}[kind]  # fmt: skip
    found = {path: _filled(template, words) for template, path in _ROOT.items()}
    found[f"{package}/__init__.py"] = f'"""{words["article"].capitalize()} {kind} for lockbench: {name}."""\n'
    found[f"{package}/py.typed"] = ""
    found[f"{package}/{name}.py"] = _filled(f"{kind}.py", words)
    found[f"tests/test_{name}.py"] = _filled("test.py", words)
    return found


def _filled(template: str, words: dict[str, str]) -> str:
    path = files("harness.scaffold") / "templates" / f"{template}.tmpl"
    return Template(path.read_text(encoding="utf-8")).substitute(words)
