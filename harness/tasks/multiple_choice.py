"""Multiple choice by log-likelihood, as lm-evaluation-harness scores it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from harness.plugins import ItemScore

if TYPE_CHECKING:
    from harness.plugins import Released


class Question(NamedTuple):
    """An item: one (context, continuation) for each option, and the index of the right one."""

    item: str
    pairs: tuple[tuple[str, str], ...]
    gold: int


def score_questions(released: Released, questions: Sequence[Question]) -> list[ItemScore]:
    """`acc` (largest log-likelihood) and `acc_norm` (largest per byte of the option) of each question.

    The space that joins an option to its prompt is not one of its bytes. Ties go to the first option.
    """
    from harness.tasks.loglikelihood import continuation_logprobs

    flat = [pair for question in questions for pair in question.pairs]
    values = iter(continuation_logprobs(released, flat))
    scores = []
    for question in questions:
        logprobs = [next(values) for _ in question.pairs]
        sizes = [max(1, len(option.strip().encode())) for _, option in question.pairs]
        per_byte = [value / size for value, size in zip(logprobs, sizes, strict=True)]
        for metric, numbers in (("acc", logprobs), ("acc_norm", per_byte)):
            right = max(range(len(numbers)), key=numbers.__getitem__) == question.gold
            scores.append(ItemScore(metric=metric, item=question.item, score=float(right)))
    return scores
