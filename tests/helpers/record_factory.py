"""Cells made up for tests: items with known effects, and the record that follows from them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from harness.bill import Bill
from harness.files import canonical_json
from harness.numbers.robustness import Cell
from harness.numbers.scoring import costs_to_recover, task_numbers, utilities
from harness.records.items import Item
from harness.records.provenance import Code, Provenance, Weights
from harness.records.record import Record
from harness.records.record_files import write_record
from harness.records.sections import Costs, Fidelity, Flag, ModelInfo, Point, TaskInfo

METRIC = "bits"


def make_items(
    *,
    recovery: float = 0.5,
    gain: float = 0.4,
    seeds: tuple[int, ...] = (1, 2),
    n: int = 60,
    noise: float = 0.01,
    utility: float = 0.9,
    attacked_utility: float | None = None,
    attacked: bool = True,
    rng: int = 0,
) -> list[Item]:
    """Items whose recovery is about `recovery`; utility is the share of right answers of locked and attacked."""
    draw = np.random.default_rng(rng)
    base = draw.normal(-2, 0.3, n)
    items = [Item("base", METRIC, None, f"d{i}", float(base[i]), 100.0) for i in range(n)]
    items += [Item("locked", METRIC, None, f"d{i}", float(base[i] - 0.05), 100.0) for i in range(n)]
    for side, share in (("attacked", recovery), ("reference", 1.0)):
        for seed in seeds if attacked or side == "reference" else ():
            seed = seed if side == "attacked" else seed + 1000
            values = base + share * gain + draw.normal(0, noise) + draw.normal(0, noise, n)
            items += [Item(side, METRIC, seed, f"d{i}", float(values[i]), 100.0) for i in range(n)]
    shares = {"base": 1.0, "locked": utility, "attacked": utility if attacked_utility is None else attacked_utility}
    for side, share in shares.items():
        for seed in (None,) if side != "attacked" else seeds if attacked else ():
            items += [Item(side, "utility/pairs", seed, str(i), float(i < share * 100)) for i in range(100)]
            items += [Item(side, "utility/perplexity", seed, str(i), -2 - 0.1 * (i % 3), 50.0) for i in range(9)]
    return items


def make_cell(
    *,
    defense: Any = "dlr",
    attack: Any = "lora",
    seed: int = 0,
    status: str = "complete",
    reason: str | None = None,
    flags: tuple[Flag, ...] = (),
    items: list[Item] | None = None,
    kept: int = 5 << 20,
    task: str = "python_source",
    budget: dict[str, Any] | None = None,
    knowledge: str = "code",
    model: str = "tiny",
    **effects: Any,
) -> Cell:
    """A cell whose record follows from its items."""
    if items is None:
        items = make_items(attacked=status == "complete", rng=seed, seeds=(10 * seed + 1, 10 * seed + 2), **effects)
    spec = {
        "model": {"name": model},
        "defense": defense if isinstance(defense, dict) else {"name": defense},
        "attack": attack if isinstance(attack, dict) else {"name": attack},
        "task": {"name": task},
        "seed": seed,
        "budget": {"steps": 100} if budget is None else budget,
        "corpus": "python_docs",
    }
    numbers = task_numbers(items, METRIC, "-bits/byte")
    ends = {"locked": numbers.score.attacked.value, "base": numbers.score.reference.value}
    starts = {"locked": numbers.score.locked.value, "base": numbers.score.base.value}
    paths = {
        side: [
            Point(step=20 * k, tokens=1000 * k, flops=1.2e9 * k, score=start + (ends[side] - start) * k / 5)
            for k in range(6)
        ]
        if ends[side] is not None and start is not None
        else []
        for side, start in starts.items()
    }
    bill = Bill(
        forward_flops=2e9,
        backward_flops=4e9,
        tokens=5000,
        steps=100,
        seconds=3.5,
        kept_for_backward_bytes=kept,
        peak_backward_bytes=kept * 2,
        optimizer_bytes=1 << 20,
        gradient_bytes=1 << 19,
        trainable_parameters=12345,
        peak_host_bytes=600 << 20,
    )
    utility = utilities(items, {"pairs": 0.5})
    collapsed = [Flag(flag="collapsed", severity="warning", detail="it did")] if utility.collapsed else []
    record = Record(
        id=hashlib.sha256(canonical_json(spec).encode()).hexdigest()[:16],
        status=status,
        status_reason=reason,
        spec=spec,
        model=ModelInfo(name=model, parameters=10**6),
        task=TaskInfo(name=task, metric=METRIC, unit="-bits/byte"),
        fidelity=Fidelity(kl=0.03, top1_agreement=0.91, dtype="float32", tokens=900),
        utility=utility,
        score=numbers.score,
        gain=numbers.gain,
        recovery=numbers.recovery,
        reference_gain=numbers.reference_gain,
        trajectory=paths["locked"],
        reference_trajectory=paths["base"],
        cost=Costs(
            lock=bill,
            attack=bill if status == "complete" else None,
            reference=bill.model_copy(update={"kept_for_backward_bytes": 2 << 20}),
        ),
        cost_to_recover=costs_to_recover(paths["locked"], paths["base"]) if paths["locked"] else {},
        validity=[*flags, *collapsed],
        provenance=Provenance(code=Code(version="0.1.0"), weights=Weights(base="a" * 64), knowledge=knowledge),
    )
    return Cell(record, items)


def write_cell(out: Path, cell: Cell) -> Path:
    """Write the cell where `harness run -o out` would."""
    folder = out / "cells" / cell.record.id
    write_record(folder, cell.record, cell.items, "log\n")
    return folder
