"""Tables that fit the terminal. Piped output is never folded, so that it can be searched and cut."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence

_RULE = re.compile(r"-+(?:  +-+)+")
_GAP = "  "


def width() -> int | None:
    """Columns of the terminal (`COLUMNS` decides, where it is set); None: not a terminal, anything goes."""
    if os.environ.get("COLUMNS", "").isdigit():
        return int(os.environ["COLUMNS"])
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def print_fitting(text: str) -> None:
    """Print a text with tables in it, folded to the terminal."""
    columns = width()
    print(text if columns is None else fitted(text, columns), end="" if text.endswith("\n") else "\n")


def fitted(text: str, columns: int) -> str:
    """Turn tables (tabulate's `simple`) that are wider than `columns`: a row becomes a column; other long lines wrap.

    Args:
        text: lines; a table has its header above a rule of dashes and ends at an empty line.
        columns: at least 20, else taken as 20.
    """
    columns, lines, found = max(columns, 20), text.split("\n"), list[str]()
    index = 0
    while index < len(lines):
        if index + 1 < len(lines) and _RULE.fullmatch(lines[index + 1].strip("\n")):
            end = next((i for i in range(index + 2, len(lines)) if not lines[i].strip()), len(lines))
            table = lines[index:end]
            found += table if max(map(len, table)) <= columns else _turned(table, columns)
            index = end
            continue
        line = lines[index]
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        found += textwrap.wrap(line, columns, subsequent_indent=indent, drop_whitespace=True) or [line]
        index += 1
    return "\n".join(found)


def _turned(table: Sequence[str], columns: int) -> list[str]:
    """One column a row, as many side by side as fit."""
    spans = [match.span() for match in re.finditer("-+", table[1])]
    cells = [[line[a:b].strip() for a, b in spans] for line in (table[0], *table[2:])]
    names, rows = cells[0], cells[1:]
    label = max(map(len, names))
    sizes = [max(map(len, row)) for row in rows]
    found: list[str] = []
    start = 0
    while start < len(rows):
        end, used = start + 1, label + len(_GAP) + sizes[start]
        while end < len(rows) and used + len(_GAP) + sizes[end] <= columns:
            used, end = used + len(_GAP) + sizes[end], end + 1
        for number, name in enumerate(names):
            values = [row[number].ljust(size) for row, size in zip(rows[start:end], sizes[start:end], strict=True)]
            found.append(_GAP.join([name.ljust(label), *values]).rstrip())
            if number == 0:
                found.append(_GAP.join(["-" * label, *("-" * size for size in sizes[start:end])]))
        found += [""] if end < len(rows) else []
        start = end
    return found


def wrapped(rows: Sequence[Sequence[str]], column: int, extra: int = 0) -> list[list[str]]:
    """The rows of a table with the text of one column wrapped, so that the table fits the terminal.

    Args:
        rows: cells, the header included.
        column: which one to wrap; it keeps at least 20 columns.
        extra: columns that the table's lines need besides.
    """
    columns = width()
    if columns is None:
        return [list(row) for row in rows]
    others = sum(max(len(row[i]) for row in rows) + len(_GAP) for i in range(len(rows[0])) if i != column)
    room = max(20, columns - others - extra)
    return [[*row[:column], "\n".join(textwrap.wrap(row[column], room)) or "", *row[column + 1 :]] for row in rows]
