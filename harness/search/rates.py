"""How a guided search begins: by the learning rate alone, as a person would, far apart first and then closer.

Few trials over many settings at once find little, and a lock may move the rate that works by its own inflation, across
rates that do not. So the first trials are the settings as given, with rates by powers of ten; the next are those of the
best so far, with rates between. `benchmarks/search_openings.py` has what that brings (docs/numbers.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from harness.search.curve import Trial
from harness.search.space import LogUniform
from harness.search.spec import SearchSpec

FAR = (1.0, 0.1, 10.0, 1e-2, 1e-4, 1e-3, 1e-5)
"""Factors of the rate given. One above early on: without it, what guides the search knows no end on that side."""
NEAR = (10**0.5, 10**-0.5, 10**0.25, 10**-0.25)
"""Factors of the best rate so far."""
FAR_SHARE = 0.6
"""Most of the trials that are far apart, in a search too short for all."""
RATE = "learning_rate"
"""Other rates that the space has (`pretrain_learning_rate`) are moved by the same factor: what ill-conditions a model
does so for all that is trained in it."""


def openings(given: Mapping[str, Any], spec: SearchSpec) -> tuple[list[dict[str, Any]], int]:
    """The first trials, and the number of trials after them that `closer` proposes.

    A search at random, or one that does not vary the rate, begins with the settings as given and nothing more.
    """
    rates = spec.space.get(RATE)
    if spec.sampler == "random" or not isinstance(rates, LogUniform):
        return [dict(given)], 0
    far = [moved(given, factor, spec) for factor in FAR if rates.low <= given[RATE] * factor <= rates.high]
    far = far[: max(1, math.ceil(FAR_SHARE * spec.trials))]
    return far, min(len(NEAR), spec.trials - len(far))


def moved(params: Mapping[str, Any], factor: float, spec: SearchSpec) -> dict[str, Any]:
    """The settings with every rate of the space times `factor`, those beside `RATE` within their ranges."""
    rates = {name: each for name, each in spec.space.items()
             if name.endswith(RATE) and isinstance(each, LogUniform)}  # fmt: skip
    return {**params, **{name: min(max(params[name] * factor, each.low), each.high) for name, each in rates.items()}}


def closer(done: Sequence[Trial], spec: SearchSpec) -> dict[str, Any] | None:
    """The settings of the best trial so far at another rate: the first of `NEAR` that leads to one not tried yet.

    Returns:
        None where no trial is complete, or none of those rates is new and in the space.
    """
    rates = spec.space.get(RATE)
    complete = [trial for trial in done if trial.score is not None]
    if not complete or not isinstance(rates, LogUniform):
        return None
    best = max(complete, key=lambda trial: trial.score or 0.0)
    tried = [float(trial.params[RATE]) for trial in done]  # type: ignore[arg-type]
    for factor in NEAR:
        rate = float(best.params[RATE]) * factor  # type: ignore[arg-type]
        known = any(math.isclose(rate, other, rel_tol=1e-6) for other in tried)
        if not known and rates.low <= rate <= rates.high:
            return moved(best.params, factor, spec)
    return None
