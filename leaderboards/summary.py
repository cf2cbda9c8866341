"""The table that `harness run` prints of one cell, from its record alone; at most 80 columns wide."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tabulate import tabulate

from harness.bill import Bill
from harness.records.items import SIDES
from harness.records.record import Record
from harness.records.sections import STAGES, Interval, Utility
from leaderboards import units
from leaderboards.formats import visible

WIDTH = 80


def cell_summary(record: Record) -> str:
    """Utility, scores, recovery, search, bills and flags; an outcome that is no success or failure comes first."""
    parts = [_title(record), _outcome(record), _scores(record), _recovery(record), _search(record), _bills(record),
             _flags(record)]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def utility_table(scores: Mapping[str, Any]) -> str:
    """The table that `harness evaluate` prints.

    Args:
        scores: `harness.utility.UtilityScores` as JSON.
    """
    rows = [[visible(name), task["metric"], units.number(task["score"]), units.number(task["chance"]), str(task["n"])]
            for name, task in scores["tasks"].items()]  # fmt: skip
    if perplexity := scores["perplexity"]:
        name, tokens = f"perplexity ({visible(perplexity['corpus'])})", f"{perplexity['tokens']} tokens"
        rows.append([name, "per token", units.number(perplexity["per_token"]), "", tokens])
        rows.append(["", "bits per byte", units.number(perplexity["bits_per_byte"]), "", ""])
    return _table(rows, ["utility", "metric", "score", "chance", "items"])


def _title(record: Record) -> str:
    names = " / ".join(record.name(part) for part in ("model", "defense", "attack", "task"))
    base = f"; base: {record.model.control}" if record.model.control else ""
    return _wrap(f"{names} / seed {record.spec['seed']}  (cell {record.id}){base}")


def _outcome(record: Record) -> str:
    lines = []
    if record.status != "complete":
        lines.append(f"{record.status.replace('_', ' ').upper()}: {record.status_reason or 'no reason recorded'}")
    if record.utility.collapsed:
        kept, locked = (units.number(_kept(model), 2) for model in (record.utility.attacked, record.utility.locked))
        lines.append(f"COLLAPSED: the attacked model keeps {kept} of the base's utility (the locked model: {locked}); "
                     "a failed attack, not a success of the lock alone")  # fmt: skip
    if record.errors:
        lines.append("NOT COUNTED: a validity check failed (see the flags); leaderboards leave this cell out")
    return "\n".join(_wrap(line) for line in lines)


def _scores(record: Record) -> str:
    score = record.score
    intervals = [getattr(score, side) for side in SIDES]
    rows = [_row("score", [units.number(i.value) for i in intervals]),
            _row("  95 %", [_ends(i) for i in intervals])]  # fmt: skip
    models = [getattr(record.utility, side) for side in SIDES[:3]]
    for task in sorted({name for model in models if model for name in model.tasks}):
        scored = [model.tasks[task].score if model and task in model.tasks else None for model in models]
        rows += _utility_rows(task, scored)
    if any(model is not None for model in models):
        rows += _utility_rows("perplexity", [model.perplexity if model else None for model in models])
        rows.append(_row("utility kept", [units.number(_kept(model), 3) for model in models]))
    fidelity = record.fidelity
    if fidelity.kl is not None:
        rows.append(_row("KL, top-1", ["", f"{fidelity.kl:.4f}, {units.number(fidelity.top1_agreement)}"]))
    unit = textwrap.shorten(visible(score.unit or record.task.metric), 14, placeholder="...")
    return _table(rows, [unit, *SIDES])


def _recovery(record: Record) -> str:
    rows = []
    for name, interval in (("recovery", record.recovery), ("gain (attacked - locked)", record.gain),
                           ("reference gain (- base)", record.reference_gain)):  # fmt: skip
        value = "undefined" if interval.value is None else units.number(interval.value)
        behind = f"{interval.n_items} items, {interval.n_seeds} seeds" if interval.n_items else ""
        rows.append([name, value, units.ends(interval), behind])
    rows += [[visible(name), units.number(value), "", ""] for name, value in record.secret_guess.items()]
    for threshold, cost in record.cost_to_recover.items():
        value = "> budget" if cost.censored else units.count(cost.flops, "FLOP")
        behind = f"{units.ratio(cost.ratio)} the base's" if cost.ratio is not None else ""
        rows.append([f"cost to recover {visible(threshold)}", value, "", behind])
    table = _table(rows, ["", "value", "95 %", "from"])
    notes = dict.fromkeys(i.reason for i in (record.recovery, record.gain, record.reference_gain) if i.reason)
    return "\n".join([table, *(_wrap(f"({note})", "  ") for note in notes)])


def _search(record: Record) -> str:
    """Best score on the selection split against trials and FLOPs, on both models, and what was chosen."""
    curves = [(side, getattr(record.search, side)) for side in SIDES[2:] if getattr(record.search, side, None)]
    rows, notes = [], []
    for side, found in curves:
        outcomes = [trial.outcome for trial in found.trials]
        ends = [units.number(found.trials[index].best) for index in (0, -1)]
        rows.append([side, *(str(outcomes.count(name)) for name in ("complete", "pruned", "failed")), *ends,
                     units.count(found.bill.flops)])  # fmt: skip
        steps = [f"{trial.number}: {units.number(trial.best)}" for trial in found.trials if trial.score == trial.best]
        kept = [trial.params for trial in found.trials if trial.number == found.chosen]
        settings = ", ".join(f"{key}={_short(value)}" for key, value in kept[0].items()) if kept else "as given"
        notes += [_wrap(f"{side}, best so far by trial: {', '.join(steps) or '-'}; {settings}", "  ")]
    if not curves:
        return ""
    header = ["search (selection split)", "complete", "pruned", "failed", "as given", "best", "FLOPs"]
    return "\n".join([_table(rows, header), *notes])


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _bills(record: Record) -> str:
    cost = record.cost
    stages = {name: getattr(cost, name) for name in STAGES}
    shown = {name: bill for name, bill in stages.items() if bill is not None}
    if not shown:
        return ""
    attacker = cost.attacker()
    rows: list[list[str]] = []
    for label, get, show in BILL_LINES:
        values = {name: get(bill) for name, bill in shown.items()}
        if any(values.values()):
            over = units.divide(get(attacker) if attacker else None, get(cost.reference) if cost.reference else None)
            rows.append([label, *(show(value) for value in values.values()), units.ratio(over)])
    table = _table(rows, ["cost", *shown, "attacker/ref."])
    return f"{table}\n{_wrap(f'(lock: {cost.lock_reason})', '  ')}" if cost.lock_reason else table


BILL_LINES: tuple[tuple[str, Callable[[Bill], float | None], Callable[[float | None], str]], ...] = (
    ("FLOPs", lambda bill: bill.flops, lambda value: units.count(value)),
    ("tokens", lambda bill: bill.tokens, lambda value: units.count(value)),
    ("steps", lambda bill: bill.steps, lambda value: units.count(value)),
    ("time", lambda bill: bill.seconds, units.seconds),
    ("kept for backward", lambda bill: bill.kept_for_backward_bytes, units.size),
    ("peak in backward", lambda bill: bill.peak_backward_bytes, units.size),
    ("optimizer state", lambda bill: bill.optimizer_bytes, units.size),
    ("gradients", lambda bill: bill.gradient_bytes, units.size),
    ("peak on device", lambda bill: bill.peak_device_bytes, units.size),
    ("peak on host", lambda bill: bill.peak_host_bytes, units.size),
    ("trained parameters", lambda bill: bill.trainable_parameters, lambda value: units.count(value)),
    ("energy", lambda bill: bill.energy_joules, lambda value: units.count(value, "J")),
)


def _flags(record: Record) -> str:
    if not record.validity:
        return "no flags"
    return "\n".join(_wrap(f"{f.severity:7} {f.flag}: {f.detail}", " " * 8) for f in record.validity)


def _utility_rows(name: str, intervals: Sequence[Interval | None]) -> list[list[str]]:
    shown = [interval or Interval() for interval in intervals]
    return [_row(name, [units.number(i.value) for i in shown]), _row("  95 %", [_ends(i) for i in shown])]


def _ends(interval: Interval) -> str:
    """An interval's ends without brackets: four of them must fit a line."""
    return units.ends(interval).strip("[]")


def _kept(model: Utility | None) -> float | None:
    return model.retention if model else None


def _row(name: str, values: Sequence[str]) -> list[str]:
    return [textwrap.shorten(visible(name), 14, placeholder="..."), *values, *[""] * (len(SIDES) - len(values))]


def _table(rows: Sequence[Sequence[str]], headers: Sequence[str]) -> str:
    table: str = tabulate(rows, headers, tablefmt="simple", disable_numparse=True, colalign=_align(len(headers)))
    return table


def _align(columns: int) -> tuple[str, ...]:
    return ("left", *["right"] * (columns - 1))


def _wrap(text: str, indent: str = "") -> str:
    return textwrap.fill(visible(text), WIDTH, subsequent_indent=indent, break_long_words=True)
