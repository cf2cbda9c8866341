"""A cell of a few seconds, as settings to lay a model and changes over."""

from __future__ import annotations

from typing import Any

QUICK: dict[str, Any] = {
    "replicates": 2,
    "utility": {"limit": 20, "perplexity_tokens": 1500},
    "attack": {
        "name": "full",
        "max_steps": 6,
        "learning_rate": 3e-3,
        "per_device_train_batch_size": 2,
        "block_size": 64,
        "eval_points": 2,
    },
    "task": {"name": "python_source", "max_items": 20, "train_bytes": 60_000},
}
"""Two seeds of six steps, few items."""

SHORT = [
    "--limit",
    "20",
    "--set",
    "utility.perplexity_tokens=1500",
    "--set",
    "replicates=1",
    "--set",
    "attack.max_steps=4",
    "--set",
    "attack.eval_points=1",
    "--set",
    "attack.block_size=64",
    "--set",
    "attack.per_device_train_batch_size=2",
    "--set",
    "task.max_items=20",
    "--set",
    "task.train_bytes=60000",
]
"""The same kind of cell on the command line: one seed, four steps."""
