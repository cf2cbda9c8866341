"""What records say of one locked checkpoint, as the part of its model card."""

from __future__ import annotations

from collections.abc import Sequence

from harness.errors import UsageError
from harness.numbers.robustness import AttackOutcome
from leaderboards import units
from leaderboards.columns import BOARD_COLUMNS
from leaderboards.formats import Table, markdown, render
from leaderboards.load import Results
from leaderboards.ranking import BoardRow, rank

_HEAD = """## How it was attacked

Measured by `lockbench`: recovery 0, the lock held; 1, the attack gained as much as on the unlocked base. Robustness is
1 minus the largest recovery. Weights of the locked model that was attacked: sha256 `{digest}`."""


def measured(results: Results, digest: str) -> str:
    """Ranking and attacks of the lock whose weights have this digest, in Markdown.

    Args:
        results: records and items; others in them count for ranks.
        digest: `weights_digest` of the locked model, as its config.json and the records have it.

    Raises:
        UsageError: no record is of these weights.
    """
    ours = {cell.record.id for cell in results.cells if cell.record.provenance.weights.locked == digest}
    if not ours:
        have = sorted({cell.record.provenance.weights.locked or "none" for cell in results.cells})
        raise UsageError(f"no record is of a locked model with weights {digest[:16]}...; there are "
                         f"{', '.join(one[:16] for one in have)}")  # fmt: skip
    rows = [row for row in rank(results.cells) if ours & {*_counted(row), *(cell.id for cell in row.excluded)}]
    board = render(Table(rows, [column for column in BOARD_COLUMNS if column[0] != "defense"]), "markdown")
    return "\n\n".join([_HEAD.format(digest=digest), board, *map(_attacks, rows)])


def _counted(row: BoardRow) -> list[str]:
    return [id_ for outcome in row.attacks for id_ in outcome.ids]


def _attacks(row: BoardRow) -> str:
    """Every attack on one task under one budget, strongest first."""
    columns = [("attack", lambda outcome: outcome.label), ("recovery", _recovery),
               ("cells", lambda outcome: ", ".join(id_[:8] for id_ in outcome.ids))]  # fmt: skip
    heading = markdown(f"{row.task}, budget {row.budget}")
    notes = [f"not counted: {cell.attack} ({cell.id[:8]}): {cell.reason}" for cell in row.excluded]
    notes += [f"warning: {text}" for text in row.warnings]
    outcomes: Sequence[AttackOutcome] = row.attacks
    return f"### {heading}\n\n{render(Table(outcomes, columns, notes), 'markdown')}"


def _recovery(outcome: AttackOutcome) -> str:
    if outcome.out_of_memory:
        return "ran out of memory"
    return units.with_ends(outcome.recovery) + (", collapsed" if outcome.collapsed else "")
