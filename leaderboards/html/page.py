"""The leaderboard as one HTML file: styles, scripts, chart library and data inside, and a policy that allows no other.

The template escapes what it shows; records only come in as the data, which scripts turn into text nodes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from harness.errors import Unavailable
from leaderboards.html.payload import payload
from leaderboards.html.pieces import Part, part_of
from leaderboards.html.pool import script_json
from leaderboards.load import Results, Skipped
from leaderboards.ranking import BoardRow, rank

FOLDER = Path(__file__).with_name("assets")
CHART = Path(__file__).with_name("vendor") / "chart.umd.min.js"
"""Chart.js 4.6.1, as its authors publish it on npm; MIT, the licence lies beside it."""
SCRIPTS = ("dom", "data", "state", "table", "heat", "cell", "board", "charts", "lock", "main")
"""In this order, inside one function."""


TITLE = "Locks on open-weight models"


def page(results: Results, title: str = TITLE, rows: Sequence[BoardRow] | None = None) -> str:
    """The whole document.

    Args:
        results: records and items.
        title: heading of the page.
        rows: `leaderboards.ranking.rank` of the cells, where that is known already.

    Raises:
        Unavailable: Jinja is not installed.
    """
    rows = rank(results.cells) if rows is None else rows
    return page_of([part_of(results.cells)], rows, results.skipped, title)


def page_of(parts: Sequence[Part], rows: Sequence[BoardRow], skipped: Sequence[Skipped], title: str = TITLE) -> str:
    """`page` of cells that were made ready for it, in one part or in several."""
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError:
        raise Unavailable("the page needs Jinja: pip install 'lockbench[report]'") from None
    data, pool = payload(parts, rows, skipped)
    css, chart = (FOLDER / "page.css").read_text(), CHART.read_text()
    scripts = [(FOLDER / f"{name}.js").read_text() for name in SCRIPTS]
    script = "\n".join(['"use strict";', "(() => {", *scripts, "})();", ""])
    template = Environment(loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined)
    return template.get_template("page.html.jinja").render(
        title=title, version=data["version"], counts=counts(parts, len(rows), len(skipped)), css=Markup(css),
        style_hash=source_hash(css), script_hashes=f"{source_hash(chart)} {source_hash(script)}",
        data=Markup(script_json(data, pool)), chart=Markup(chart), script=Markup(script),
    )  # fmt: skip


def counts(parts: Sequence[Part], locks: int, skipped: int) -> str:
    """How much is behind the page."""
    attacks = len({piece.name for part in parts for piece in part.pieces})
    cells = sum(len(part.pieces) for part in parts)
    left = f", {skipped} skipped" if skipped else ""
    return f"{_many(locks, 'lock')}, {_many(attacks, 'attack')}, {_many(cells, 'cell')}{left}"


def source_hash(text: str) -> str:
    """How a content security policy names an inline script or style."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
