"""From cells to jobs: what is shared comes once and first, what is not is no job; estimates come from earlier bills."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from record_factory import make_cell, write_cell

from harness.planning.estimate import Precedents, estimated
from harness.planning.grid import plan
from harness.planning.pieces import shared
from harness.planning.plan import Job, jobs
from harness.spec import resolve


def of(**grid: Any) -> list[Job]:
    common = {key: grid.pop(key) for key in ("replicates",) if key in grid}
    return jobs(plan(grid, {"replicates": 1, **common}))


def kinds(found: list[Job]) -> list[str]:
    return [job.kind for job in found]


def test_one_cell_is_one_job_and_cells_share_what_they_can() -> None:
    assert kinds(of(defenses=["dlr"], attacks=["lora"])) == ["cell"]
    found = of(defenses=["none", "dlr"], attacks=["full", "lora"])
    assert kinds(found) == ["base", "lock", "locked", "reference", "reference", "lock", "locked", *["cell"] * 4]
    by = {job.id: job for job in found}
    assert {by[name].kind for name in found[-1].needs} == {"base", "lock", "locked", "reference"}
    locked = next(job for job in found if job.kind == "locked")
    assert [by[name].kind for name in locked.needs] == ["lock"]
    assert (found[0].cells, locked.cells) == (4, 2)


def test_other_seeds_share_the_base_alone() -> None:
    assert kinds(of(defenses=["dlr"], attacks=["lora"], seeds=[0, 1])) == ["base", "cell", "cell"]


def test_a_lock_that_pretrains_shares_its_control_and_not_the_base() -> None:
    found = of(defenses=["none", "pmp"], attacks=["full", "lora"])
    control = next(job for job in found if job.kind == "control")
    assert control.cells == 2
    dependent = {job.kind for job in found if control.id in job.needs}
    assert dependent == {"base", "locked", "cell"}
    assert not any(job.kind == "reference" for job in found)  # nobody else attacks that control, or that base, so
    assert sum(job.kind == "base" for job in found) == 2


def test_every_model_is_loaded_before_anything_else() -> None:
    assert kinds(of(models=["tiny", "stories260k"], attacks=["lora"])) == ["load", "load", "cell", "cell"]


def test_classifiers_share_too_and_another_own_task_is_another_base() -> None:
    grid: dict[str, Any] = {"models": ["resnet-tiny"], "defenses": ["none", "specdef"], "attacks": ["full", "lora"]}
    found = of(**grid, tasks=["digits"])
    assert kinds(found) == ["base", "lock", "locked", "reference", "reference", "lock", "locked", *["cell"] * 4]
    owns = [shared(resolve({"model": "resnet-tiny", "task": "digits", "own": {"name": "digits", "classes": classes}}))
            for classes in ([0, 1], [2, 3])]  # fmt: skip
    assert not set(owns[0]) & set(owns[1])


@given(
    defenses=st.lists(st.sampled_from(["none", "dlr", "specdef", "pmp"]), min_size=1, max_size=3, unique=True),
    attacks=st.lists(st.sampled_from(["full", "lora", "redistill"]), min_size=1, max_size=3, unique=True),
    seeds=st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True),
    replicates=st.integers(1, 3),
)
def test_a_plan_names_every_job_once_and_what_it_needs_before_it(
    defenses: list[str], attacks: list[str], seeds: list[int], replicates: int
) -> None:
    found = of(defenses=defenses, attacks=attacks, seeds=seeds, replicates=replicates)
    place = {job.id: index for index, job in enumerate(found)}
    assert len(place) == len(found)
    assert kinds(found).count("cell") == len(defenses) * len(attacks) * len(seeds)
    for index, job in enumerate(found):
        assert all(place[name] < index for name in job.needs)
        if job.kind != "cell":
            assert job.cells == sum(job.id in other.needs for other in found if other.kind == "cell") > 1


def test_the_estimate_is_the_bill_of_equal_settings_and_says_where_there_is_none(tmp_path: Path) -> None:
    found = of(defenses=["none", "dlr"], attacks=["full", "lora"])
    assert estimated(found, tmp_path)[2] == 2 + 1 + 4  # references, the lock and the cells have no precedent
    record = make_cell().record.model_copy(update={"spec": found[-1].spec})  # dlr, lora: 3.5 s a stage
    assert Precedents([record]).of(found[-1]).seconds == 3.5  # type: ignore[union-attr]
    write_cell(tmp_path, make_cell())
    known, bill, unknown = estimated(found, tmp_path)  # by names alone: tiny with lora, tiny with dlr
    by_title = {job.title: job.seconds for job in known}
    assert by_title["lock dlr on tiny, seed 0"] == 3.5
    assert by_title["lock none on tiny, seed 0"] == 0
    assert unknown == 1 + 2
    assert bill.seconds == 3.5 * (1 + 1 + 2)
