"""What runs next, what is tried again, what is given up: the loop over an executor that a test plays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UsageError
from harness.executors.base import Ended, Event, Place
from harness.planning import scheduler
from harness.planning.claims import Claims
from harness.planning.grid import plan
from harness.planning.live import Board
from harness.planning.plan import Job, jobs
from harness.planning.scheduler import Rules, Scheduler
from harness.records.record import Record
from harness.records.record_files import read_record

RULES = Rules(retries=2, pause=0.0)


class Played:
    """An executor that ends every job as a function says; the cells that are done are recorded by `give_up`."""

    def __init__(self, place: Place, slots: int, answer: Callable[[Job, int], Ended | None]) -> None:
        self.place, self.slots, self.answer = place, slots, answer
        self.running: dict[str, Job] = {}
        self.starts: list[Job] = []
        self.stopped: list[str] = []
        self.closed = False

    def start(self, job: Job) -> None:
        self.running[job.id] = job
        self.starts.append(job)
        assert len(self.running) <= self.slots

    def poll(self, seconds: float) -> list[Event]:
        for job in reversed(list(self.running.values())):  # the last one started ends first
            tries = Counter(other.id for other in self.starts)[job.id]
            ended = self.answer(job, tries)
            if ended is not None:
                del self.running[job.id]
                return [ended]
        return []

    def stop(self, job: str) -> None:
        self.stopped.append(job)
        del self.running[job]

    def close(self) -> None:
        self.closed = True


def cells(**grid: Any) -> list[Job]:
    return jobs(plan(grid, {"replicates": 1}))


def done(job: Job, place: Place) -> Ended:
    """A cell ends with a record (here a failed one, which is one too)."""
    if job.kind == "cell":
        record(job, place)
    return Ended(job=job.id, how="done")


def record(job: Job, place: Place) -> Record:
    from harness.cell import give_up
    from harness.spec import Spec

    return give_up(Spec.parse(job.spec, "spec"), "played", out=place.out, data_dir=None)


def run(todo: Sequence[Job], executor: Played, rules: Rules = RULES) -> list[Record]:
    board = Board(quiet=True, total=sum(job.kind == "cell" for job in todo))
    found = list(Scheduler(todo, executor, executor.place, board, rules).run())
    assert executor.closed
    return found


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(out=tmp_path / "out", cache=tmp_path / "cache")


def test_a_job_starts_after_what_it_needs_and_slots_are_filled(place: Place) -> None:
    todo = cells(defenses=["none", "dlr"], attacks=["full", "lora"])
    executor = Played(place, 3, lambda job, tries: done(job, place))
    assert len(run(todo, executor)) == 4
    seen: set[str] = set()
    for job in executor.starts:
        assert set(job.needs) <= seen | {job.id for job in executor.starts[: executor.starts.index(job)]}
        seen.add(job.id)
    assert len(executor.starts) == len(todo)


def test_the_pause_before_another_try_doubles(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, starts = [0.0], []
    monkeypatch.setattr(scheduler.time, "monotonic", lambda: clock[0])

    class Ticking(Played):
        def start(self, job: Job) -> None:
            super().start(job)
            if job.kind == "cell":
                starts.append(clock[0])

        def poll(self, seconds: float) -> list[Event]:
            clock[0] += 0.125
            return super().poll(seconds)

    def answer(job: Job, tries: int) -> Ended:
        return done(job, place) if job.kind != "cell" or tries > 3 else Ended(job=job.id, how="crashed", detail="gone")

    (record,) = run(cells(attacks=["full"]), Ticking(place, 1, answer), Rules(retries=3, pause=1.0))
    assert record.status_reason == "played"
    pauses = [later - earlier for earlier, later in pairwise(starts)]
    assert all(wanted <= pause <= wanted + 0.5 for pause, wanted in zip(pauses, (1, 2, 4), strict=True))


def test_a_crash_is_tried_again_and_an_error_is_not(place: Place) -> None:
    todo = cells(attacks=["full", "lora"], seeds=[0, 1])

    def answer(job: Job, tries: int) -> Ended:
        if job.kind == "cell" and job.spec["seed"] == 1:
            return Ended(job=job.id, how="crashed", detail="gone") if tries < 3 else done(job, place)
        if job.kind == "cell" and job.spec["attack"]["name"] == "full":
            return Ended(job=job.id, how="failed", detail="an error")
        return done(job, place)

    executor = Played(place, 2, answer)
    reasons = sorted(record.status_reason or "" for record in run(todo, executor))
    assert reasons == ["an error", "played", "played", "played"]
    tried = Counter(job.id for job in executor.starts if job.kind == "cell")
    assert sorted(tried.values()) == [1, 1, 3, 3]


def test_what_never_comes_back_is_given_up_with_its_reason(place: Place) -> None:
    todo = cells(attacks=["full"])
    executor = Played(place, 1, lambda job, tries: Ended(job=job.id, how="crashed", detail="gone"))
    assert [record.status_reason for record in run(todo, executor)] == ["gone (3 times)"]


def test_a_shared_piece_that_fails_takes_its_cells_along_and_no_others(place: Place) -> None:
    todo = cells(defenses=["none", "dlr"], attacks=["full", "lora"])

    def answer(job: Job, tries: int) -> Ended:
        if job.kind == "lock" and job.spec["defense"]["name"] == "dlr":
            return Ended(job=job.id, how="failed", detail="RuntimeError: no")
        return done(job, place)

    executor = Played(place, 1, answer)
    reasons = Counter(record.status_reason for record in run(todo, executor))
    assert reasons == {"lock dlr on tiny, seed 0: RuntimeError: no": 2, "played": 2}
    assert not any(job.kind == "locked" and job.spec["defense"]["name"] == "dlr" for job in executor.starts)


def test_an_outcome_of_a_shared_piece_is_recorded_by_each_cell(place: Place) -> None:
    todo = cells(defenses=["none", "dlr"], attacks=["full"])
    executor = Played(place, 1, lambda job, tries: Ended(job=job.id, how="outcome") if job.kind == "reference" else
                      done(job, place))  # fmt: skip
    assert len(run(todo, executor)) == 2
    assert sum(job.kind == "cell" for job in executor.starts) == 2


def test_a_job_that_does_not_end_is_stopped(place: Place) -> None:
    todo = cells(attacks=["full", "lora"])
    executor = Played(place, 2, lambda job, tries: None if job.kind == "cell" and job is todo[-1] else done(job, place))
    found = run(todo, executor, Rules(timeout=0.05, retries=5, pause=0))
    assert executor.stopped == [todo[-1].id]
    assert "did not end within 0.05 s" in (found[-1].status_reason or "")


def test_a_broken_model_and_a_full_disk_end_the_run_before_anything_else_starts(place: Place) -> None:
    todo = cells(models=["tiny", "stories260k"], attacks=["full"])
    executor = Played(place, 4, lambda job, tries: Ended(job=job.id, how="usage", detail="NaN in it"))
    with pytest.raises(UsageError, match="NaN in it"):
        run(todo, executor)
    assert {job.kind for job in executor.starts} == {"load"}
    full = Played(place, 4, lambda job, tries: Ended(job=job.id, how="no_room", detail="28"))
    with pytest.raises(OSError, match="No space left"):
        run(todo, full)
    assert full.closed


def test_what_another_command_has_claimed_waits_and_is_not_done_twice(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.planning.scheduler.ASK_AGAIN", 0.01)
    todo = cells(attacks=["full", "lora"])
    cell = todo[-1]
    other = Claims(place.out).held(cell.id)
    assert other.__enter__()

    def answer(job: Job, tries: int) -> Ended:
        if job is todo[-2]:  # meanwhile the other command finishes
            record(cell, place)
            other.__exit__(None, None, None)
        return done(job, place)

    executor = Played(place, 2, answer)
    assert len(run(todo, executor)) == 2
    assert cell not in executor.starts
    assert read_record(place.out / "cells" / cell.id) is not None
