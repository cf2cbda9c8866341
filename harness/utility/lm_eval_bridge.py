"""The real lm-evaluation-harness on a model in memory; its per-item results in our words."""

from __future__ import annotations

import copy
import io
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError
from harness.plugins import ItemScore
from harness.settings import unknown
from harness.utility.spec import TaskUtility, UtilitySpec

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

    from harness.plugins import Released

TASKS = Path(__file__).with_name("tasks")
"""Our lm-eval tasks: also what to pass to lm-eval's own `--include_path`."""
PREFERRED = ("acc_norm", "acc")
FEWSHOT_SEED = 1234
"""lm-eval's default."""


def run_tasks(released: Released, spec: UtilitySpec, data_dir: Path | None) -> dict[str, TaskUtility]:
    """Score the spec's tasks, item by item.

    Raises:
        UsageError: an unknown task; or one whose data is neither in the data pack nor on this machine.
    """
    if not spec.tasks:
        return {}
    with _quiet():
        samples = _samples(released, spec, data_dir)
    return {name: task_utility(name, rows) for name, rows in samples.items()}


def check_tasks(tasks: Sequence[str], data_dir: Path | None) -> None:
    """See that the tasks exist and their data is here; seconds only where one is not ours.

    Raises:
        UsageError: as `run_tasks`.
    """
    from harness.utility.pack_tasks import FILES, load

    ours = {f"pack_{task}": task for task in FILES}
    for name in tasks:
        try:
            if name in ours:
                load(task=ours[name], data_dir=None if data_dir is None else str(data_dir))
        except (KeyError, IndexError, TypeError) as error:
            raise UsageError(f"utility task {name!r}: a row of its data is not as in the pack: {error!r}") from None
    if set(tasks) - {*ours, "minimal_pairs"}:
        with _quiet():
            _load(tasks, data_dir)


def _samples(released: Released, spec: UtilitySpec, data_dir: Path | None) -> dict[str, list[dict[str, Any]]]:
    """lm-eval's logged samples by task.

    This is lm-eval's `simple_evaluate` less its seeding of the global generators and its machine report, which takes a
    second of subprocesses a call; `tests/harness/utility/test_lm_eval_bridge.py` compares with lm-eval's own command.
    """
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    loaded = _load(spec.tasks, data_dir)
    for task in loaded["tasks"].values():
        _set_fewshot(task, spec.num_fewshot)
    # lm-eval sets a pad token on the tokenizer it gets; ours must stay as released.
    lm = HFLM(pretrained=released.model, tokenizer=copy.deepcopy(released.tokenizer), batch_size=spec.batch_size,
              backend="causal")  # fmt: skip
    results = evaluate(lm=lm, task_dict=loaded, limit=spec.limit, bootstrap_iters=0, log_samples=True)
    samples: dict[str, list[dict[str, Any]]] = results["samples"]
    return samples


def _load(tasks: Sequence[str], data_dir: Path | None) -> dict[str, Any]:
    """lm-eval's own description of the tasks, data included."""
    try:
        loaded: dict[str, Any] = _task_manager(tasks, data_dir).load(list(tasks))
    except (ConnectionError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"utility tasks {', '.join(tasks)}: their data is not on this machine ({reason}); "
                         "the `pack_*` tasks need the data pack only") from error  # fmt: skip
    return loaded


def _set_fewshot(task: Any, wanted: int | None) -> None:
    """As `simple_evaluate` does: a task that is zero-shot by its own definition stays so."""
    own = task.get_config("num_fewshot")
    if own != 0:
        task.set_config(key="num_fewshot", value=(own or 0) if wanted is None else wanted)
    task.set_fewshot_seed(seed=FEWSHOT_SEED)


def _task_manager(tasks: Sequence[str], data_dir: Path | None) -> TaskManager:
    """Ours alone when they suffice: indexing lm-eval's own thousands of files takes seconds."""
    from lm_eval.tasks import TaskManager

    metadata: dict[str, Any] = {"data_dir": str(data_dir)} if data_dir is not None else {}
    manager = TaskManager(include_path=str(TASKS), include_defaults=False, metadata=metadata)
    if missing := [name for name in tasks if name not in manager.all_tasks]:
        ours = manager.all_tasks
        manager = TaskManager(include_path=str(TASKS), metadata=metadata)
        if absent := [name for name in missing if name not in manager.all_tasks]:
            raise UsageError(unknown(absent[0], ours, "utility task") + ", or any task of lm-eval")
    return manager


def task_utility(name: str, samples: Sequence[dict[str, Any]]) -> TaskUtility:
    """One task's logged samples as scores.

    Args:
        name: lm-eval's task name.
        samples: lm-eval's `log_samples` rows, one a document (and filter; the first filter counts).

    Raises:
        UsageError: no sample, or no metric that is a number an item.
    """
    if not samples:
        raise UsageError(f"utility task {name!r} has no items")
    rows = [row for row in samples if row["filter"] == samples[0]["filter"]]
    metric = _main_metric(name, rows[0])
    values = [_value(row[metric]) for row in rows]
    items = tuple(ItemScore(metric=f"utility/{name}", item=str(row["doc_id"]), score=score, weight=weight)
                  for row, (score, weight) in zip(rows, values, strict=True))  # fmt: skip
    total = math.fsum(item.weight for item in items)
    return TaskUtility(metric=metric, score=math.fsum(i.score * i.weight for i in items) / total, chance=_chance(rows),
                       n=len(items), items=items)  # fmt: skip


def _main_metric(name: str, row: dict[str, Any]) -> str:
    metrics: list[str] = row["metrics"]
    for metric in (*PREFERRED, "bits_per_byte", *metrics):
        if metric in metrics and isinstance(row[metric], (int, float, tuple)):
            return metric
    raise UsageError(f"utility task {name!r} has no metric that is a number an item, only {', '.join(metrics)}")


def _value(value: Any) -> tuple[float, float]:
    """(score, weight): a plain number, or lm-eval's (log-likelihood in nats, bytes or words) as minus bits a unit."""
    if isinstance(value, tuple):
        nats, units = value
        return nats / math.log(2) / units, float(units)
    return float(value), 1.0


def _chance(rows: Sequence[dict[str, Any]]) -> float | None:
    """Mean over the items of 1 / options; None where an item is a single request."""
    options = [len(row["arguments"]) for row in rows]
    return sum(1 / count for count in options) / len(options) if min(options) > 1 else None


@contextmanager
def _quiet() -> Iterator[None]:
    """lm-eval's information lines and unconditional progress bars stay off the terminal; exceptions pass."""
    before = {name: logging.getLogger(name).level for name in ("lm_eval", "datasets", "huggingface_hub")}
    for name in before:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
