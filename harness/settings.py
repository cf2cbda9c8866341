"""The base of every settings and record model: frozen, closed, one doc line a field."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.errors import UsageError


class Settings(BaseModel):
    """Frozen, refuses unknown keys; the string below a field documents it (and lands in the JSON Schema)."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False,
        defer_build=True)  # most settings are only listed: no validator is built before it is used  # fmt: skip

    @classmethod
    def parse(cls, values: dict[str, Any], where: str) -> Self:
        """Validate `values`, turning pydantic's report into one line.

        Args:
            values: raw keys and values, for example from `--set` or YAML.
            where: dotted prefix for the message, for example `defense`.

        Raises:
            UsageError: an unknown key or an impossible value; names the value and what is allowed.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            *parents, last = [where, *(str(part) for part in first["loc"])]
            if first["type"] == "extra_forbidden":
                allowed = _inner(cls, parents[1:]).model_fields
                raise UsageError(unknown(last, allowed, f"setting of {'.'.join(parents)}")) from None
            reason = first.get("ctx", {}).get("error")
            if isinstance(reason, UsageError):  # a validator's own, whole line
                raise reason from None
            name = ".".join([*parents, last])
            if first["type"] == "missing":
                field = _inner(cls, parents[1:]).model_fields.get(last)
                raise UsageError(f"{name} is missing: {field.description if field else 'it is required'}") from None
            raise UsageError(f"{name}={first['input']!r}: {first['msg']}") from None

    @classmethod
    def parse_pairs(cls, text: str, where: str, kind: str, read: Callable[[str, str], Any]) -> Self:
        """Validate `key=value` pairs separated by commas or spaces; what is left out has its default.

        Args:
            text: the pairs.
            where: prefix for messages, as in `parse`.
            kind: what one key is called.
            read: (key, text of its value) to the value.

        Raises:
            UsageError: an unknown key, one given twice, or an impossible value.
        """
        values: dict[str, Any] = {}
        for part in filter(None, (piece.strip() for piece in text.replace(" ", ",").split(","))):
            key, _, value = part.partition("=")
            if key not in cls.model_fields:
                raise UsageError(unknown(key, cls.model_fields, kind))
            if key in values:
                raise UsageError(f"{where}.{key} is given twice in {text!r}")
            values[key] = read(key, value)
        return cls.parse(values, where)


def _inner(model: type[BaseModel], path: Iterable[str]) -> type[BaseModel]:
    """The settings model that `path` leads to from `model`."""
    for part in path:
        inner = model.model_fields[part].annotation if part in model.model_fields else None
        model = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else model
    return model


def unknown(name: str, allowed: Iterable[str], kind: str) -> str:
    """One line for an unknown name: the name, the closest allowed one, and all allowed ones."""
    names = sorted(allowed)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"unknown {kind} {name!r}.{hint} Allowed: {', '.join(names) or '(none)'}"
