"""Utility of a released model: lm-eval tasks, held-out perplexity, agreement with the base. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.utility.spec import Perplexity, TaskUtility, UtilityScores, UtilitySpec

if TYPE_CHECKING:
    from harness.plugins import Released

__all__ = ["Perplexity", "TaskUtility", "UtilityScores", "UtilitySpec", "evaluate_utility"]


def evaluate_utility(released: Released, spec: UtilitySpec, data_dir: Path | None) -> UtilityScores:
    """Run the spec's lm-eval tasks on the model in memory and measure its perplexity.

    Args:
        released: the model is put in eval mode and left unchanged, and so is its tokenizer.
        spec: what to measure.
        data_dir: the data pack's folder, for tasks and texts that come from it; None is none.

    Raises:
        UsageError: an unknown task or corpus, or one that needs the data pack or the network.
    """
    from harness.utility.lm_eval_bridge import run_tasks
    from harness.utility.perplexity import perplexity

    released.model.eval()
    return UtilityScores(tasks=run_tasks(released, spec, data_dir), perplexity=perplexity(released, spec, data_dir))
