"""What is kept of a search: its trials, the best so far after each, and what was chosen. Data only."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal

from pydantic import Field, JsonValue

from harness.bill import Bill, total
from harness.settings import Settings

TrialOutcome = Literal["complete", "pruned", "failed"]


class Trial(Settings):
    """One trial, whatever became of it."""

    number: int
    """From 0, which is the settings as given."""
    outcome: TrialOutcome
    """`complete`, `pruned` (below the median on its way), or `failed` (died, or would not count as an attack)."""
    reason: str | None = None
    """Why it is not complete."""
    params: dict[str, JsonValue]
    """The settings that were tried, by name."""
    score: float | None = None
    """Score on the selection split; null unless complete."""
    bill: Bill
    """What it cost, undo included."""
    flops: float = 0
    """FLOPs of the search up to its end."""
    best: float | None = None
    """Best score of the search up to its end; null while none is complete."""


class SearchCurve(Settings):
    """One attacker's search: best score against the number of trials and against FLOPs."""

    trials: list[Trial] = Field(default_factory=list)
    """In the order in which they were made."""
    chosen: int | None = None
    """Number of the trial whose settings the attack then used; null: none was complete, so it used those given."""
    attack: dict[str, JsonValue] = Field(default_factory=dict)
    """The attack with all settings as then used."""
    bill: Bill = Bill()
    """All trials together: the bill `search`."""

    @property
    def chosen_params(self) -> dict[str, JsonValue]:
        """The settings that were found; none where no trial was complete."""
        return {} if self.chosen is None else self.trials[self.chosen].params


class Searches(Settings):
    """The searches of a cell."""

    attacked: SearchCurve | None = None
    """On the locked model; null when the cell ended before."""
    reference: SearchCurve | None = None
    """On the base, with as many trials; null when the cell ended before."""


def curve(trials: Iterable[Trial], given: Mapping[str, Any], as_given: Collection[str] = ()) -> SearchCurve:
    """The search that these trials make; of equal scores the first wins.

    Args:
        trials: in order; their `flops` and `best` are made anew.
        given: the attack as given, its name included.
        as_given: settings that stay as given.
    """
    done: list[Trial] = []
    best: Trial | None = None
    for trial in trials:
        if trial.score is not None and (best is None or best.score is None or trial.score > best.score):
            best = trial
        spent = trial.bill.flops + (done[-1].flops if done else 0)
        done.append(trial.model_copy(update={"flops": spent, "best": best.score if best else None}))
    return SearchCurve(trials=done, chosen=best.number if best else None,
                       attack={**given, **{k: v for k, v in (best.params if best else {}).items()
                                           if k not in as_given}},
                       bill=total(trial.bill for trial in done))  # fmt: skip
