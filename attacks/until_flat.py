"""`until_flat`: full fine-tuning with twice the steps, and twice again, until that brings next to nothing.

A lock that only slows training down is safe within any budget that is short enough. Every run starts from the released
weights with a schedule of its own, as a longer attack would; the best by the selection split is kept. All runs are on
the bill. The report says whether the curve was flat at the end, or the doublings or the budget were used up.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from attacks.full import FullSettings
from harness import registry
from harness.kinds import KINDS, Kind
from harness.plugins import Attack, AttackContext, Attacked, Released
from harness.search.undone import Undone

if TYPE_CHECKING:
    from harness.meters.meter import Meter
    from harness.training import TrainResult, TrajectoryPoint

AS_GIVEN = ("max_steps",)
"""A trial that did best in half of the steps would halve the first run, and with it all others."""
FAR = 10
"""A rate so many times from the default is what a search of short runs takes against a lock that moves it. What is best
for a while may not be best in the end, so both are trained until they are flat."""
LIMITS = ("steps", "tokens", "flops", "seconds")


class UntilFlatSettings(FullSettings):
    """`full`'s settings for the first run, and when to stop doubling."""

    doublings: int = Field(3, ge=0, le=10)
    """Most times that `max_steps` is doubled."""
    flat: float = Field(0.03, gt=0, lt=1)
    """A run is the last if it rises by less than this share of what the best one before rose."""


class UntilFlat(Attack):
    """Fine-tune every parameter, for longer and longer."""

    kinds: ClassVar[tuple[Kind, ...]] = KINDS
    as_given = AS_GIVEN
    Settings = UntilFlatSettings
    settings: UntilFlatSettings

    def tried(self) -> dict[str, Any]:
        """See `harness.plugins.Attack`: a trial of this is a run of `full`, whose search it shares."""
        return {"name": "full", **self.settings.model_dump(include=set(FullSettings.model_fields))}

    def attack(self, released: Released, context: AttackContext) -> Attacked:
        """See `harness.plugins.Attack`."""
        usual, given = float(FullSettings.model_fields["learning_rate"].default), self.settings.learning_rate
        far = max(usual, given) > FAR * min(usual, given)
        return longer_and_longer("full", self.settings, released, context, [given, usual] if far else [given])


def longer_and_longer(
    name: str, settings: Any, released: Released, context: AttackContext, rates: Sequence[float]
) -> Attacked:
    """The attack `name` on copies of the released model with twice the steps each time; the best, at the cost of all.

    Args:
        name: of the attack that is run.
        settings: its `max_steps` is that of the first run; what the attack knows of the rest is given to it.
        released: stays as it is.
        context: a lock that is undone once is paid once.
        rates: learning rates; each goes on until its own curve is flat.
    """
    kind = registry.attacks().get(name)
    fields = {key: value for key, value in settings.model_dump().items() if key in kind.Settings.model_fields}
    context = replace(context, undone=context.undone or Undone(paid_again=False))
    released.model.to(device="cpu")  # each run takes a copy of its own to the device
    trained: list[TrainResult] = []
    told: list[dict[str, Any]] = []
    best, kept = 0, None
    rising: dict[float, float | None] = dict.fromkeys(rates)  # the best end of each rate whose curve is not flat yet
    for doubling in range(settings.doublings + 1):
        before, steps = context.meter.total, settings.max_steps * 2**doubling
        for rate, led in list(rising.items()):
            chosen = {**fields, "max_steps": steps, "eval_points": max(1, settings.eval_points), "learning_rate": rate}
            folder = context.folder / f"{steps}_steps_{rate:g}"
            folder.mkdir(parents=True, exist_ok=True)
            copied = replace(released, model=copy.deepcopy(released.model))
            run = kind(kind.Settings.parse(chosen, name)).attack(copied, replace(context, folder=folder))
            trained.append(run.training)
            start, end = _start(trained[0]), _end(run.training)
            told.append({"steps": steps, "learning_rate": rate, "score": end})
            if kept is None or end > _end(trained[best]):  # on the host: the next run has the device to itself
                best, kept = len(trained) - 1, replace(run, model=run.model.to(device="cpu"))
            rising[rate] = end if led is None else max(end, led)
            if led is not None and led > start and end - led < settings.flat * (led - start):
                del rising[rate]  # a rate that has brought nothing yet is not flat: it may need its time
        if not rising or not _affords_twice(context.meter, before):
            break
    assert kept is not None
    report = {**kept.report, "attack": name, "chosen": best, "runs": told, "flat": not rising}
    return replace(kept, model=kept.model.to(device=context.device), report=report,
                   training=replace(trained[best], trajectory=_joined(trained, best)))  # fmt: skip


def _start(run: TrainResult) -> float:
    return run.trajectory[0].score if run.trajectory else -run.losses[0]


def _end(run: TrainResult) -> float:
    """Where a run came to: the selection score, or where nobody scores, what is left of the loss."""
    tenth = max(1, len(run.losses) // 10)
    return run.trajectory[-1].score if run.trajectory else -sum(run.losses[-tenth:]) / tenth


def _joined(runs: list[TrainResult], best: int) -> list[TrajectoryPoint]:
    """One trajectory over everything that was paid for; the untouched model is its first point only.

    Runs after the best one bring no point of their own, but their cost: at the end the attacker has the best model.
    """
    points, done = list(runs[0].trajectory), runs[0].steps
    for number, run in enumerate(runs[1:], 1):
        later = run.trajectory[1:]
        if number > best:
            later = [replace(point, score=_end(runs[best])) for point in run.trajectory[-1:]]
        points += [replace(point, step=point.step + done) for point in later]
        done += run.steps
    return points


def _affords_twice(meter: Meter, before: object) -> bool:
    """Whether the budget has room for twice what was spent since `before`; half of a schedule is no longer attack."""
    spent, left = meter.total, meter.remaining()
    return all(getattr(left, name) is None or getattr(left, name) >= 2 * (getattr(spent, name) - getattr(before, name))
               for name in LIMITS)  # fmt: skip
