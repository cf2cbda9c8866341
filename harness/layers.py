"""Where a spec's values come from. Imports no torch.

Layers, each over the one before: built-in defaults < config file < environment < command line.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.spec import Spec, named, resolve
from harness.strict_yaml import load_yaml, read_yaml

ENVIRONMENT_PREFIX = "HARNESS_"
NOT_SPEC = {"HARNESS_DATA", "HARNESS_CACHE", "HARNESS_OUT", "HARNESS_ONLINE", "HARNESS_WORKERS",
            "HARNESS_REPORT_TO"}  # fmt: skip
"""Environment variables that say where things are; they do not change a cell."""


def layers(config: Path | None, environment: Mapping[str, str], command_line: Mapping[str, Any],
           assignments: Iterable[str] = ()) -> dict[str, Any]:  # fmt: skip
    """Merge config file, environment, command line and `--set` assignments (last wins), without defaults.

    Raises:
        UsageError: an unreadable file, or an assignment without `=`.
    """
    merged: dict[str, Any] = {}
    if config is not None:
        _merge(merged, read_yaml(config))
    _merge(merged, _from_environment(environment))
    _merge(merged, command_line)
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {assignment!r}: expected key=value, for example attack.learning_rate=1e-4")
        _merge(merged, _nest(key.split("."), parse_value(value)))
    return merged


def parse_value(text: str) -> Any:
    """A value from the command line or the environment, read as YAML (`null`, `true`, `[1, 2]`, `1e-4` as a number)."""
    try:
        return float(text) if "e" in text.lower() else load_yaml(text)
    except ValueError:
        return text


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    sections = {name.upper() for name in Spec.model_fields}
    for key, value in sorted(environment.items()):
        path = key.removeprefix(ENVIRONMENT_PREFIX).split("__")
        if key.startswith(ENVIRONMENT_PREFIX) and key not in NOT_SPEC and path[0] in sections:
            _merge(merged, _nest([part.lower() for part in path], value if len(path) == 1 else parse_value(value)))
    return merged


def _nest(path: list[str], value: Any) -> dict[str, Any]:
    for part in reversed(path):
        value = {part: value}
    return dict(value)


def _merge(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    """Merge in place; a name over a mapping (or the reverse) keeps both: the name chooses, the mapping sets.

    Choosing another plug-in than the lower layer did drops that layer's settings, which were meant for the other one.
    """
    for key, value in new.items():
        old = into.get(key)
        if key in ("model", "defense", "attack", "task", "own"):
            fresh = named(value, key)
            before = {} if old is None else named(old, key)
            other = "name" in fresh and "name" in before and fresh["name"] != before["name"]
            into[key] = fresh if other else _deep(before, fresh)
        elif isinstance(value, Mapping) and isinstance(old, Mapping):
            nested = dict(old)
            _merge(nested, value)
            into[key] = nested
        else:
            into[key] = value


def _deep(before: Mapping[str, Any], fresh: Mapping[str, Any]) -> dict[str, Any]:
    """Two layers of one plug-in's settings; the parts of a composition have mappings of their own."""
    both = {key: _deep(before[key], value) for key, value in fresh.items()
            if isinstance(value, Mapping) and isinstance(before.get(key), Mapping)}  # fmt: skip
    return {**before, **fresh, **both}


def from_process(config: Path | None, command_line: Mapping[str, Any], assignments: Iterable[str] = ()) -> Spec:
    """`resolve(layers(...))` with this process's environment."""
    return resolve(layers(config, os.environ, command_line, assignments))
