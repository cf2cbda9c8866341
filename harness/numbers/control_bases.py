"""Cells whose bases differ, brought onto one: of a lock that pretrains, every root seed has a control of its own.

Recovery is a share of what the base can be taught, so it is a figure of one base, and several bases have several. Item
by item, the scores of each base's cells are moved to where that base is the mean of all, and gains over it are scaled
to where the best reference of that base gains what the best references gain on average. Recoveries within a base stay
what they are; those over different bases become recoveries of one attack with more seeds, and spread as seeds do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from harness.records.items import Scores

if TYPE_CHECKING:
    from harness.numbers.robustness import Cell

Models = Mapping[str, Scores]


def on_one_base(cells: Iterable[Cell]) -> dict[str, Models]:
    """Scores of the models of every cell, by the cell's id.

    Args:
        cells: with a base each, scored on the same items; those of one base are left as they are.
    """
    worlds: dict[str | None, dict[str, Models]] = defaultdict(dict)
    for cell in cells:
        worlds[cell.record.provenance.weights.base][cell.record.id] = cell.models
    if len(worlds) < 2:
        return {name: models for world in worlds.values() for name, models in world.items()}
    bases = [next(iter(world.values()))["base"].values.mean(1) for world in worlds.values()]
    gains = [max((_gain(models) for models in world.values()), default=0.0) for world in worlds.values()]
    mean, usual = np.mean(bases, axis=0), float(np.mean(gains))
    moved: dict[str, Models] = {}
    for world, base, gain in zip(worlds.values(), bases, gains, strict=True):
        factor = usual / gain if min(gains) > 0 else 1.0  # where nothing can be taught, there is no recovery anyway
        for name, models in world.items():
            moved[name] = {side: replace(scores, values=mean[:, None] + factor * (scores.values - base[:, None]))
                           for side, scores in models.items()}  # fmt: skip
    return moved


def _gain(models: Models) -> float:
    """What the reference gained over the base, mean by weight; 0 where there is none."""
    base, reference = models["base"], models.get("reference")
    if reference is None:
        return 0.0
    return float(base.weights @ (reference.values.mean(1) - base.values.mean(1)) / base.weights.sum())
