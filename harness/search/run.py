"""The search itself: trials one after the other, each with an equal part of the budget; none of them ends it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from harness.bill import Bill
from harness.budget import Budget
from harness.meters.meter import Meter
from harness.search.curve import Trial, TrialOutcome
from harness.search.study import Asked, Pruned, Study


class Attempt(Protocol):
    """Runs one trial."""

    def __call__(self, params: dict[str, Any], meter: Meter, report: Callable[[float], None]) -> float:
        """Attack with `params` on `meter`, calling `report` at each point of the trajectory; the selection score."""


def run_trials(study: Study, trials: int, budget: Budget, attempt: Attempt,
               note: Callable[[str], None] = lambda text: None, device: str = "cpu") -> list[Trial]:  # fmt: skip
    """Make trials until `trials` have ended; those that an earlier call ended count.

    Args:
        study: where proposals come from and outcomes go.
        trials: how many.
        budget: the attacker's whole budget; each trial may spend one part of `trials + 1`, and the last is left for
            the attack.
        attempt: runs one.
        note: called with a line about each.
        device: whose energy is on the bills.
    """
    part = budget.part(trials + 1)
    while (number := len(done := study.done)) < trials:
        asked = study.ask()
        trial = _one(number, asked, Meter(part, device=device), attempt)
        study.tell(asked, trial)
        shown = f"score {trial.score:.6g}" if trial.score is not None else f"{trial.outcome}: {trial.reason}"
        note(f"trial {number + 1}/{trials}: {shown}")
    return done


def _one(number: int, asked: Asked, meter: Meter, attempt: Attempt) -> Trial:
    score, reason = None, None
    outcome: TrialOutcome = "complete"
    try:
        score = attempt(asked.params, meter, asked.report)
    except Pruned as stop:
        outcome, reason = "pruned", str(stop)
    except Exception as error:  # whatever a setting does to a plug-in is that trial's failure
        outcome, reason = "failed", f"{type(error).__name__}: {' '.join(str(error).split())}"
    return Trial(number=number, outcome=outcome, reason=reason, params=asked.params, score=score,
                 bill=_bill(meter))  # fmt: skip


def _bill(meter: Meter) -> Bill:
    """Everything that the trial cost. What it could not get on the device, it did not use."""
    bill, memory = meter.total, meter.budget.memory
    if memory is not None and bill.peak_device_bytes is not None:
        return bill.model_copy(update={"peak_device_bytes": min(bill.peak_device_bytes, memory)})
    return bill
