"""Spec, registry, models, tasks, the training loop, budgets, meters, records and the command line.

`harness.run` and `harness.matrix` are the Python API (docs/api.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.api import matrix as matrix
    from harness.api import run as run

__all__ = ["matrix", "run"]


def __getattr__(name: str) -> Any:
    """Late: `import harness` and the command line stay instant."""
    if name in __all__:
        from harness import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
