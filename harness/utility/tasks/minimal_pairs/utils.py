"""What `minimal_pairs.yaml` calls: the pairs as a data set, and the accuracy of each phenomenon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from datasets import Dataset, DatasetDict

from harness.minimal_pairs import minimal_pairs


def load(**_: Any) -> DatasetDict:
    """The pairs as the split `test`; lm-eval passes the task's metadata, which changes nothing here."""
    return DatasetDict({"test": Dataset.from_list([asdict(pair) for pair in minimal_pairs()])})


def no_context(doc: dict[str, Any]) -> str:
    """A sentence stands alone. (A function: lm-eval compiles a template anew for every document.)"""
    return ""


def sentences(doc: dict[str, Any]) -> list[str]:
    """The good one first."""
    return [doc["good"], doc["bad"]]


def process_results(doc: dict[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """1 where the good sentence is strictly likelier, under `acc` and under the name of the phenomenon."""
    good, bad = (log_likelihood for log_likelihood, _ in results)
    hit = float(good > bad)
    return {"acc": hit, doc["phenomenon"]: hit}
