"""Curves and results where people already look: Weights & Biases, TensorBoard, MLflow, by accelerate's trackers.

Every lock, attack and reference that is really made is a run there, and so is the finished cell; what the cache holds
is not run again and so not reported again. Nothing here can end a cell: a tracker that fails is dropped with a warning.
Imports neither torch nor a tracker before the first run.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError
from harness.settings import unknown

if TYPE_CHECKING:
    from harness.records.record import Record
    from harness.spec import Spec

NAMES = ("wandb", "tensorboard", "mlflow")
PROJECT = "lockbench"
Log = Callable[[Mapping[str, float], int], None]


def no_log(values: Mapping[str, float], step: int) -> None:
    """Report nothing."""


def parse_names(text: str | None) -> tuple[str, ...]:
    """`--report_to`: names separated by commas, `all` for every one that is installed, `none` or empty for none.

    Raises:
        UsageError: an unknown name, or one that is not installed.
    """
    from harness import probes

    given = [name.strip() for name in (text or "none").split(",") if name.strip()]
    if given == ["none"]:
        return ()
    if given == ["all"]:
        return tuple(name for name in NAMES if probes.check(name) is None)
    for name in given:
        if name not in NAMES:
            raise UsageError(unknown(name, (*NAMES, "all", "none"), "tracker"))
        if reason := probes.check(name):
            raise UsageError(f"--report_to {name}: {reason}")
    return tuple(dict.fromkeys(given))


@dataclass(frozen=True)
class Reporting:
    """Where to report; by default nowhere."""

    names: tuple[str, ...] = ()
    """Some of `NAMES`."""
    folder: Path = field(default=Path("results/logs"))
    """What stays on this machine goes here: TensorBoard's events, W&B's files, MLflow's data base."""

    @contextmanager
    def run(self, name: str, spec: Spec) -> Iterator[Log]:
        """One run called `name`; inside, what is logged is reported."""
        if not self.names:
            yield no_log
            return
        config = flat(spec.model_dump(mode="json"))
        run = _Run({kind: _opened(kind, name, spec.id, self.folder, config) for kind in self.names})
        try:
            yield run.log
        finally:
            run.close()

    def record(self, record: Record, spec: Spec) -> None:
        """The numbers of a finished cell, as a run called by its id."""
        if self.names:
            with self.run(record.id, spec) as log:
                log(headline(record), 0)


def headline(record: Record) -> dict[str, float]:
    """What a table shows of a cell, only the numbers that there are."""
    locked, attacker = record.utility.locked, record.cost.attacker()
    values = {
        "recovery": record.recovery.value, "recovery_low": record.recovery.low, "recovery_high": record.recovery.high,
        "gain": record.gain.value, "reference_gain": record.reference_gain.value,
        "utility_kept": locked.retention if locked else None, "kl": record.fidelity.kl,
        "lock_flops": record.cost.lock.flops if record.cost.lock else None,
        "attacker_flops": attacker.flops if attacker else None,
        "reference_flops": record.cost.reference.flops if record.cost.reference else None,
        **{f"score_{side}": getattr(record.score, side).value for side in ("base", "locked", "attacked", "reference")},
    }  # fmt: skip
    return {name: float(value) for name, value in values.items() if value is not None}


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Nested values under dotted keys; what a tracker cannot hold (null, lists) as text."""
    found: dict[str, bool | int | float | str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value if isinstance(value, bool | int | float | str) else str(value)
    return found


class _Run:
    """The open trackers of one run, and a count of steps that never goes back (a run has several stages)."""

    def __init__(self, trackers: dict[str, Any]) -> None:
        self._trackers = {kind: tracker for kind, tracker in trackers.items() if tracker is not None}
        self._last = self._before = 0

    def log(self, values: Mapping[str, float], step: int) -> None:
        if step < self._last:
            self._before += self._last
        self._last = step
        self._each(lambda tracker: tracker.log(dict(values), step=self._before + step))

    def close(self) -> None:
        self._each(lambda tracker: tracker.finish())

    def _each(self, do: Callable[[Any], None]) -> None:
        for kind, tracker in list(self._trackers.items()):
            try:
                do(tracker)
            except Exception as error:  # somebody else's service: it may fail in any way
                del self._trackers[kind]
                _warn(kind, error)


def _opened(kind: str, name: str, group: str, folder: Path, config: dict[str, Any]) -> Any:
    """A started tracker, the spec stored in it; None, with a warning, where it does not start."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tracker = _BUILD[kind](name, group, folder.absolute())
        tracker.start()
        tracker.store_init_configuration(config)
    except Exception as error:  # see `_each`
        _warn(kind, error)
        return None
    return tracker


def _wandb(name: str, group: str, folder: Path) -> Any:
    import wandb
    from accelerate.tracking import WandBTracker

    project = os.environ.get("WANDB_PROJECT", PROJECT)
    return WandBTracker(project, name=name, group=group, dir=str(folder), settings=wandb.Settings(silent=True))


def _tensorboard(name: str, group: str, folder: Path) -> Any:
    from accelerate.tracking import TensorBoardTracker

    return TensorBoardTracker(name, logging_dir=folder / "tensorboard")


def _mlflow(name: str, group: str, folder: Path) -> Any:
    import mlflow
    from accelerate.tracking import MLflowTracker

    if not os.environ.get("MLFLOW_TRACKING_URI"):
        mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    return MLflowTracker(experiment_name=PROJECT, run_name=name, tags={"cell": group},
                         logging_dir=(folder / "mlflow").as_uri())  # fmt: skip


_BUILD: dict[str, Callable[[str, str, Path], Any]] = {"wandb": _wandb, "tensorboard": _tensorboard, "mlflow": _mlflow}


def _warn(kind: str, error: Exception) -> None:
    text = " ".join(str(error).split())[:200]
    warnings.warn(f"{kind} is left out from here on: {type(error).__name__}: {text}", RuntimeWarning, stacklevel=2)
