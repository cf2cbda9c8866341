"""What a classifier is still good for: accuracy on its own task, and agreement with the base on its own inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError
from harness.plugins import ItemScore
from harness.utility.spec import TaskUtility, UtilityScores

if TYPE_CHECKING:
    from harness.plugins import Released
    from harness.tasks.classification import ClassificationTask, Example


def own_utility(released: Released, own: ClassificationTask, name: str) -> UtilityScores:
    """Accuracy on the test split of the task that the classifier was made for, item by item.

    Args:
        released: put in eval mode.
        own: the task.
        name: of the task, in the record.
    """
    released.model.eval()
    scores = [item for item in own.score(released, "test") if item.metric == own.metric]
    if not scores:
        raise UsageError(f"own={name!r} has too little data: there is no item in its test split")
    items = tuple(ItemScore(metric=f"utility/{name}", item=item.item, score=item.score) for item in scores)
    task = TaskUtility(metric=own.metric, score=sum(item.score for item in items) / len(items), chance=own.chance,
                       n=len(items), items=items)  # fmt: skip
    return UtilityScores(tasks={name: task}, perplexity=None)


def own_fidelity(base: Released, other: Released, examples: Sequence[Example],
                 own: ClassificationTask) -> dict[str, Any]:  # fmt: skip
    """KL(base || other) an item, in nats, and agreement on the most likely label.

    Returns:
        As `harness.utility.fidelity.fidelity`; `n_tokens` are items.

    Raises:
        UsageError: the two are the same weights.
    """
    if base.digest == other.digest:
        raise UsageError(f"{base.name!r} and {other.name!r} have the same weights ({base.digest[:12]}): "
                         "comparing a model with itself says nothing")  # fmt: skip
    for side in (base, other):
        side.model.eval()
    p, q = (own.logits(side, examples).log_softmax(-1) for side in (base, other))
    kl = float((p.exp() * (p - q)).sum(-1).double().mean())
    dtype = str(next(other.model.parameters()).dtype).removeprefix("torch.")
    return {"kl": kl, "top1_agreement": float((p.argmax(-1) == q.argmax(-1)).double().mean()), "dtype": dtype,
            "n_tokens": len(examples)}  # fmt: skip
