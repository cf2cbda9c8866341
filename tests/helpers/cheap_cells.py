"""Cells that cost next to nothing (`tests/cheap_package`), and a command line that sees them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

PACKAGE = Path(__file__).parents[1] / "cheap_package"


def cheap_model(folder: Path) -> Path:
    """A model of two thousand parameters over the byte tokenizer, saved to `folder`."""
    from harness.testing import byte_tokenizer, random_llama

    random_llama(hidden_size=4, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
                 num_key_value_heads=1).save_pretrained(folder)  # fmt: skip
    byte_tokenizer().save_pretrained(folder)
    return folder


def cheap_grid(model: Path, attacks: Sequence[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """A grid of `nudge` attacks with these settings."""
    return {"models": [str(model)], "defenses": ["none"], "tasks": ["sums"], "replicates": 1,
            "attacks": [{"name": "nudge", **settings} for settings in attacks],
            "utility": {"limit": 1, "perplexity_tokens": 64}, **more}  # fmt: skip


def matrix_command(grid: dict[str, Any], folder: Path, *words: str, out: str = "out") -> list[str]:
    """`harness matrix` over a grid; its file, results and cache lie in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "grid.yaml"
    file.write_text(yaml.safe_dump(grid))
    return [sys.executable, "-m", "harness.cli.main", "matrix", str(file), "--out", str(folder / out), "--cache",
            str(folder / "cache"), *words]  # fmt: skip


def environment() -> dict[str, str]:
    """This process's, in which the plug-ins are seen."""
    seen = os.pathsep.join(filter(None, [str(PACKAGE), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": seen, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
