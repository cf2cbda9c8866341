"""An Optuna study in a folder that survives a kill. The only module that imports Optuna, and it does so late.

Nothing is remembered outside the journal: the sampler is made anew for every trial from a seed of that trial, so a
resumed search proposes what a straight one would have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.search.curve import Trial
from harness.search.rates import closer, openings
from harness.search.space import Choice, Distribution, Integers, LogUniform
from harness.search.spec import SearchSpec
from harness.seeds import derive

if TYPE_CHECKING:
    import optuna

JOURNAL = "study.journal"
STARTUP = 10
"""Most trials before TPE guides, which is Optuna's default; a short search has half of its trials there. A search that
begins by `harness.search.rates` has its trials far apart instead."""
FINISHED_BEFORE_PRUNING, POINTS_BEFORE_PRUNING = 4, 2
"""A median of fewer trajectories, or at an earlier point of the schedule, says too little: what starts slowly, by a
long warm-up or a small rate, may end best."""
_TRIAL = "trial"


class Pruned(Exception):
    """This trial is below the median of those finished."""


class Dead(Exception):
    """This trial has produced nothing that could be scored."""


class Asked:
    """A proposed trial; `report` is called at each point of its trajectory, the untouched start first.

    A point is a share of the schedule and not a step, so that trials of different lengths can be compared.
    """

    def __init__(self, trial: optuna.Trial) -> None:
        self.trial, self._point = trial, -1
        self.params: dict[str, Any] = dict(trial.params)

    def report(self, score: float) -> None:
        """Tell the pruner of one point.

        Raises:
            Pruned: the trial should stop here.
            Dead: the score is not finite.
        """
        self._point += 1
        if not math.isfinite(score):
            raise Dead(f"the score is {score} at point {self._point} of the trajectory")
        if self._point == 0:  # the same for every trial
            return
        self.trial.report(score, self._point)
        if self.trial.should_prune():
            raise Pruned(f"below the median at point {self._point} of the trajectory, score {score:.6g}")


class Study:
    """Trials by number; open it on the same folder with the same arguments to go on."""

    def __init__(self, folder: Path, spec: SearchSpec, seed: int, given: Mapping[str, Any]) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna, self._spec, self._seed = optuna, spec, seed
        self._first, self._closer = openings({name: given[name] for name in spec.space}, spec)
        self._startup = len(self._first) if self._closer else min(STARTUP, spec.trials // 2)
        self._space = {name: _distribution(each) for name, each in spec.space.items()}
        _mend(folder)
        storage = JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
        pruner = optuna.pruners.MedianPruner(FINISHED_BEFORE_PRUNING, POINTS_BEFORE_PRUNING)
        self._study = optuna.create_study(
            storage=storage, study_name="search", direction="maximize", load_if_exists=True,
            pruner=pruner if spec.pruner else optuna.pruners.NopPruner())  # fmt: skip
        for trial in self._trials("RUNNING"):  # killed in the middle: made again under the same number of ours
            self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)

    @property
    def done(self) -> list[Trial]:
        """Every trial that has ended, in order."""
        return [Trial.model_validate(trial.user_attrs[_TRIAL]) for trial in self._trials("COMPLETE", "PRUNED")]

    def ask(self) -> Asked:
        """Propose the next trial; the first is the settings as given, see `harness.search.rates`."""
        done = self.done
        opening = self._opening(done)
        if opening is not None and not self._trials("WAITING"):
            self._study.enqueue_trial(opening)
        self._study.sampler = self._sampler(derive(self._seed, len(done)))
        return Asked(self._study.ask(self._space))

    def _opening(self, done: list[Trial]) -> dict[str, Any] | None:
        place = len(done) - len(self._first)
        if place < 0:
            return self._first[len(done)]
        return closer(done, self._spec) if place < self._closer else None

    def tell(self, asked: Asked, trial: Trial) -> None:
        """Write the outcome down, for good.

        A failed trial is told as a pruned one: Optuna would hide a failure from the sampler, which would then propose
        the same again.
        """
        asked.trial.set_user_attr(_TRIAL, trial.model_dump(mode="json"))
        states = self._optuna.trial.TrialState
        if trial.outcome == "complete":
            self._study.tell(asked.trial, trial.score)
        else:
            self._study.tell(asked.trial, state=states.PRUNED)

    def _trials(self, *states: str) -> list[optuna.trial.FrozenTrial]:
        wanted = tuple(self._optuna.trial.TrialState[state] for state in states)
        return list(self._study.get_trials(deepcopy=False, states=wanted))

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        if self._spec.sampler == "random":
            return self._optuna.samplers.RandomSampler(seed)
        return self._optuna.samplers.TPESampler(seed=seed, n_startup_trials=self._startup)


def _distribution(chosen: Distribution) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(chosen, Choice):
        return CategoricalDistribution(chosen.values)
    if isinstance(chosen, Integers):
        return IntDistribution(chosen.low, chosen.high)
    return FloatDistribution(chosen.low, chosen.high, log=isinstance(chosen, LogUniform))


def _mend(folder: Path) -> None:
    """Undo what a kill may have left: a lock that nobody holds (the cache's own lock is held), half a last line."""
    for stale in folder.glob(f"{JOURNAL}.lock*"):
        stale.unlink()
    journal = folder / JOURNAL
    if journal.exists() and not (written := journal.read_bytes()).endswith(b"\n"):
        journal.write_bytes(written[: written.rfind(b"\n") + 1])
