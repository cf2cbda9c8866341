"""The sections of a record: intervals, scores, utility, bills, trajectories, flags. Data only."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from harness.bill import Bill, total
from harness.settings import Settings

Status = Literal["complete", "failed", "out_of_memory", "over_budget", "unavailable", "skipped", "interrupted"]
Severity = Literal["info", "warning", "error"]


class Interval(Settings):
    """A number and its 95 % interval."""

    value: float | None = None
    """The number; null with a reason where there is none."""
    low: float | None = None
    """Lower end; null with a reason."""
    high: float | None = None
    """Upper end; null with a reason."""
    n_items: int = 0
    """Items behind it."""
    n_seeds: int = 0
    """Attack seeds behind it (the smaller number where two sides differ); 0 where no attack is involved."""
    reason: str | None = None
    """Why something is null, or what the interval leaves out."""


class Score(Settings):
    """Task score on the held-out test split; larger is more of the capability."""

    base: Interval = Interval(reason="not scored")
    """Untouched base."""
    locked: Interval = Interval(reason="not scored")
    """Locked model, not yet attacked."""
    attacked: Interval = Interval(reason="not scored")
    """After the attack on the locked model."""
    reference: Interval = Interval(reason="not scored")
    """After the same attack on the base."""
    unit: str = ""
    """What the score is in."""


class UtilityScore(Settings):
    """One utility task of one model."""

    score: Interval
    """Accuracy, or whatever the task's main metric is; larger is better."""
    chance: float | None = None
    """Score of guessing; null where it is unknown and taken as 0."""


class Utility(Settings):
    """What one model still does."""

    tasks: dict[str, UtilityScore] = Field(default_factory=dict)
    """By lm-eval task name."""
    perplexity: Interval = Interval(reason="not measured")
    """Perplexity a token on held-out text; smaller is better."""
    retention: float | None = None
    """Mean over tasks of (score - chance) / (base's score - chance); 1 for the base itself."""
    reason: str | None = None
    """Why retention is null."""


class Utilities(Settings):
    """Utility of the three models."""

    base: Utility | None = None
    """Untouched base; null when the cell ended before."""
    locked: Utility | None = None
    """Locked model; null when the cell ended before."""
    attacked: Utility | None = None
    """Attacked models, all seeds together; null when there is none."""
    collapsed: bool | None = None
    """Whether the attacked model keeps less than 1 - eps of the base's utility; null when unknown."""
    eps: float = 0.1
    """The share of utility an attacker may lose."""


class ModelInfo(Settings):
    """The base."""

    name: str
    """As in the spec."""
    parameters: int | None = None
    """Parameters of the base."""
    locked_parameters: int | None = None
    """Parameters of the locked model."""
    dtype: str | None = None
    """Type of the weights in memory."""
    family: str | None = None
    """Architecture, as transformers names it."""
    control: str | None = None
    """What stands in the base's place everywhere in this record, because the lock pretrains; null: the base itself."""


class Fidelity(Settings):
    """How close the locked model is to the base, on held-out tokens, at the precision that is released."""

    kl: float | None = None
    """Mean KL(base, locked) a token, nats."""
    top1_agreement: float | None = None
    """Share of tokens on which both predict the same next token."""
    dtype: str | None = None
    """Precision compared."""
    tokens: int | None = None
    """Tokens compared."""
    reason: str | None = None
    """Why something is null."""


class TaskInfo(Settings):
    """The capability the attacker wants."""

    name: str
    """As in the spec."""
    metric: str
    """The metric of `items.parquet` that is the score."""
    unit: str = ""
    """What the score is in."""
    chance: float | None = None
    """Score of guessing; null where unknown."""
    digest: str | None = None
    """sha256 over the content of all splits."""


STAGES = ("lock", "control", "undo", "search", "attack", "reference")
"""Those of `Costs` that have a bill, in the order in which people read them."""


class Costs(Settings):
    """One bill a stage. Null means that the stage did not take place."""

    lock: Bill | None = None
    """Making the locked model."""
    lock_reason: str | None = None
    """Why the lock's bill is null although there is a lock."""
    control: Bill | None = None
    """Pretraining the control that a lock which pretrains is compared with; no part of the lock's cost."""
    undo: Bill | None = None
    """What the attacker did to the lock before training (first attack seed)."""
    search: Bill | None = None
    """All trials of the attacker's search."""
    attack: Bill | None = None
    """The training itself (first attack seed)."""
    reference: Bill | None = None
    """The same attacker on the base, its undo and search included (first reference seed)."""

    def attacker(self) -> Bill | None:
        """Undo, search and attack together; null when no attack took place."""
        parts = [bill for bill in (self.undo, self.search, self.attack) if bill is not None]
        return total(parts) if parts else None


class Point(Settings):
    """The attacker's score on the selection split after so much was spent."""

    step: int
    """Optimizer steps."""
    tokens: int
    """Tokens, undo and search included."""
    flops: float
    """Counted FLOPs, undo and search included."""
    score: float
    """Score on the selection split."""


class CostToRecover(Settings):
    """The least cost at which the trajectory first reaches a recovery."""

    flops: float | None = None
    """Total FLOPs of undo, search and attack up to there; null: not reached within the budget, or unknown."""
    tokens: int | None = None
    """Tokens up to there."""
    step: int | None = None
    """Optimizer step."""
    ratio: float | None = None
    """FLOPs over those the reference attack needed for the same score on the base."""
    censored: bool = False
    """True: not reached within the budget, the cost is larger than all that was spent."""
    reason: str | None = None
    """Why something is null."""


class Flag(Settings):
    """One finding of the validity checks."""

    flag: str
    """Name of the check."""
    severity: Severity
    """`error` keeps the cell out of leaderboards."""
    detail: str
    """One line."""
