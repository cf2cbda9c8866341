"""What attacks and locks are called in tables: their names and, where several share one, what they differ in."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from harness.files import canonical_json
from harness.records.record import Record


def attack_of(record: Record) -> dict[str, Any]:
    """The attack with its settings and, where it searched, how: one that did not search is another attacker."""
    search, attack = record.spec.get("search"), _settings(record.spec["attack"])
    if not isinstance(search, Mapping) or not search.get("trials"):
        return attack
    how = "" if search.get("pruner") else " unpruned"
    space = hashlib.sha256(canonical_json(search.get("space")).encode()).hexdigest()[:6]
    return {**attack, "search": f"{search['trials']} trials by {search.get('sampler')}{how} in space {space}"}


def labels(chosen: Sequence[Any]) -> dict[str, str]:
    """Labels of plug-in choices, by their canonical JSON: the name (or the choice's own `label`) and, where several
    share it, what they differ in."""
    by_name: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for choice in map(_settings, chosen):
        text = canonical_json(choice)
        by_name[str(choice.get("label") or choice["name"])][text] = json.loads(text)  # one order of nested settings
    found = {}
    for name, variants in by_name.items():
        keys = sorted({key for choice in variants.values() for key in choice})
        differ = [key for key in keys if len({canonical_json(c.get(key)) for c in variants.values()}) > 1]
        for key, variant in variants.items():
            detail = ", ".join(f"{k}={variant[k]}" for k in differ if k in variant)
            found[key] = f"{name} ({detail})" if detail else name
    return found


def label_of(known: Mapping[str, str], choice: Any) -> str:
    """The label of one choice among those given to `labels`."""
    return known[canonical_json(_settings(choice))]


def _settings(choice: Any) -> dict[str, Any]:
    return dict(choice) if isinstance(choice, Mapping) else {"name": str(choice)}
