"""What a checkpoint's configuration may not ask for: sizes its tensors cannot bear out, and code from elsewhere.

transformers acts on these keys without asking for `trust_remote_code`: an attention or expert implementation that is a
hub id, and hub kernels, bring compiled code; an adapter's configuration leads to another folder than the checked one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.errors import UsageError

ADAPTER = "adapter_config.json"
MAX_LABELS = 10_000
"""transformers writes a name for each label of a classifier before it builds anything."""


def check_config(folder: Path, config: dict[str, Any], shapes: Sequence[tuple[int, ...]]) -> None:
    """Refuse what config.json says before a model is built from it.

    Args:
        folder: the model's folder.
        config: its config.json.
        shapes: of all tensors in the weights files.

    Raises:
        UsageError: names the key and its value.
    """
    if (folder / ADAPTER).exists():
        raise UsageError(f"{folder} holds an adapter ({ADAPTER}), which names another model; merge the two first")
    where = folder / "config.json"
    for key, value in _entries(config):
        if _is_code(key, value):
            raise UsageError(f"{where}: {key}={value!r:.100} would bring code from elsewhere; take it out")
        if key == "num_labels" and not (type(value) is int and 0 <= value <= MAX_LABELS):
            raise UsageError(f"{where}: {key}={value!r:.100} is not a number of labels")
    largest = max((dim for shape in shapes for dim in shape), default=0)
    text = config.get("text_config")
    text = text if isinstance(text, dict) else config
    limits = {"num_hidden_layers": len(shapes), "n_layer": len(shapes), "hidden_size": largest, "n_embd": largest,
              "vocab_size": largest}  # fmt: skip
    for key, limit in limits.items():
        value = text.get(key)
        if value is not None and (type(value) is not int or not 0 <= value <= limit):
            raise UsageError(f"{where}: {key}={value!r:.100} does not fit the weights (at most {limit})")


def _is_code(key: str, value: Any) -> bool:
    if key in ("use_kernels", "kernel_config"):
        return bool(value)
    return key.endswith("_implementation") and any("/" in part for _, part in _entries({"": value}) if
                                                   isinstance(part, str))  # fmt: skip


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value at any depth."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield key, part
            yield from _entries(part)
    elif isinstance(value, list):
        for part in value:
            yield from _entries(part)
