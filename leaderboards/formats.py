"""One set of rows in five formats. Text from records is escaped for each: it may come from anybody."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from tabulate import tabulate

from harness.errors import UsageError
from harness.settings import Settings, unknown
from harness.text import visible as visible

Format = Literal["table", "markdown", "csv", "latex", "json"]
FORMATS: tuple[Format, ...] = get_args(Format)
Column = tuple[str, Callable[[Any], str]]
"""Title, and how a row shows there."""

_LATEX = {"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_",
          "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
          "|": r"\textbar{}", '"': r"\textquotedbl{}"}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Rows and how people see them; csv and json carry every field of the rows instead."""

    rows: Sequence[Settings]
    columns: Sequence[Column]
    notes: Sequence[str] = ()
    """Lines under the table, in the formats for people."""


def render(table: Table, kind: str) -> str:
    """A table as text in one format, without a newline at the end.

    Args:
        table: rows of one class.
        kind: table, markdown, csv, latex or json.

    Raises:
        UsageError: unknown format.
    """
    if kind not in FORMATS:
        raise UsageError(unknown(kind, FORMATS, "format"))
    if kind == "json":
        return json.dumps([row.model_dump(mode="json") for row in table.rows], indent=1, allow_nan=False)
    if kind == "csv":
        return _csv([flatten(row.model_dump(mode="json")) for row in table.rows]).rstrip("\n")
    escape, style, lead = _STYLES[kind]
    body = [[escape(_short(show(row))) for _, show in table.columns] for row in table.rows]
    text = tabulate(body, [escape(title) for title, _ in table.columns], tablefmt=style, disable_numparse=True)
    notes = [lead + escape(_short(note, 2000)) for note in table.notes]
    return "\n".join([text, *([""] if notes else []), *notes])


def _short(text: str, width: int = 300) -> str:
    """A name of any length must not push the rest out of sight; csv and json have all of it."""
    return text if len(text) <= width else f"{text[:width]}... ({len(text)} characters)"


def markdown(text: str) -> str:
    """Text that Markdown shows as it is, inside a table cell."""
    safe = re.sub(r"([\\`*_\[\]~|$])", r"\\\1", visible(text))
    return re.sub(r"[&<>@]", lambda match: f"&#{ord(match[0])};", safe) if set(safe) & set("&<>@") else safe


def latex(text: str) -> str:
    """Text that LaTeX prints as it is, inside a table cell."""
    return "".join(_LATEX.get(char, char) for char in visible(text))


_STYLES: dict[str, tuple[Callable[[str], str], str, str]] = {
    "table": (visible, "simple", "  "),
    "markdown": (markdown, "pipe", "- "),
    "latex": (latex, "latex_raw", "% "),
}
"""Escape, tabulate's name, and what starts a note."""


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys; lists as one text each."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, dict):
            flat |= flatten(item, f"{name}.")
        elif isinstance(item, list):
            flat[name] = "; ".join(part if isinstance(part, str) else json.dumps(part) for part in item)
        else:
            flat[name] = item
    return flat


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    titles = list(dict.fromkeys(key for row in rows for key in row))
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow([_csv_cell(title) for title in titles])
    writer.writerows([[_csv_cell(row.get(title)) for title in titles] for row in rows])
    return sink.getvalue()


def _csv_cell(value: Any) -> Any:
    """Text that a spreadsheet would take for a formula gets an apostrophe in front, as spreadsheets themselves do."""
    if not isinstance(value, str):
        return value
    text = visible(value)
    return "'" + text if text.lstrip()[:1] in _FORMULA else text


_FORMULA = {"=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20"}
"""What starts a formula; the wide forms do in East Asian spreadsheets."""
