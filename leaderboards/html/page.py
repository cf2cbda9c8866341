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
from leaderboards.html.pool import script_json
from leaderboards.load import Results
from leaderboards.ranking import BoardRow

FOLDER = Path(__file__).with_name("assets")
CHART = Path(__file__).with_name("vendor") / "chart.umd.min.js"
"""Chart.js 4.6.1, as its authors publish it on npm; MIT, the licence lies beside it."""
SCRIPTS = ("dom", "data", "state", "table", "heat", "cell", "board", "charts", "lock", "main")
"""In this order, inside one function."""


def page(results: Results, title: str = "Locks on open-weight models", rows: Sequence[BoardRow] | None = None) -> str:
    """The whole document.

    Args:
        results: records and items.
        title: heading of the page.
        rows: `leaderboards.ranking.rank` of the cells, where that is known already.

    Raises:
        Unavailable: Jinja is not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError:
        raise Unavailable("the page needs Jinja: pip install 'lockbench[report]'") from None
    data = payload(results, rows)
    css, chart = (FOLDER / "page.css").read_text(), CHART.read_text()
    parts = [(FOLDER / f"{name}.js").read_text() for name in SCRIPTS]
    script = "\n".join(['"use strict";', "(() => {", *parts, "})();", ""])
    template = Environment(loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined)
    return template.get_template("page.html.jinja").render(
        title=title, version=data["version"], counts=counts(data["locks"], results), css=Markup(css),
        style_hash=source_hash(css), script_hashes=f"{source_hash(chart)} {source_hash(script)}",
        data=Markup(script_json(data)), chart=Markup(chart), script=Markup(script),
    )  # fmt: skip


def counts(locks: Sequence[object], results: Results) -> str:
    """How much is behind the page."""
    attacks = len({cell.record.name("attack") for cell in results.cells})
    skipped = f", {len(results.skipped)} skipped" if results.skipped else ""
    return f"{_many(len(locks), 'lock')}, {_many(attacks, 'attack')}, {_many(len(results.cells), 'cell')}{skipped}"


def source_hash(text: str) -> str:
    """How a content security policy names an inline script or style."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
