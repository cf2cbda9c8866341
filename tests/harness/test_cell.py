"""A whole cell on a random model: every outcome is recorded, nothing is done twice, a killed run goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cell_cases import QUICK

from harness.cache import Cache
from harness.cell import run_cell
from harness.errors import UsageError
from harness.plugins import Attack, AttackContext, Attacked, Released
from harness.progress import Progress
from harness.records.record import Record
from harness.records.record_files import read_record, seal_of
from harness.spec import Spec, resolve
from harness.train_settings import TrainSettings
from harness.workshop import Workshop


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(cache=Cache(tmp_path_factory.mktemp("cache")), data_dir=None, progress=Progress(quiet=True))


def spec_of(model: str, **changes: Any) -> Spec:
    merged = {**QUICK, "model": {"name": model}, **changes}
    for section in ("attack", "task"):
        merged[section] = {**QUICK[section], **changes.get(section, {})}
    return resolve(merged)


def test_the_control_is_recorded_and_verifies(model: str, workshop: Workshop, tmp_path: Path) -> None:
    record = run_cell(spec_of(model), out=tmp_path, workshop=workshop)
    assert record.status == "complete", record.status_reason
    assert read_record(tmp_path / "cells" / record.id) == record
    assert record.recovery.n_seeds == 2
    assert record.fidelity.kl is None
    assert "equal weight digests" in (record.fidelity.reason or "")
    weights = record.provenance.weights
    assert weights.base == weights.locked
    assert not set(weights.attacked) & set(weights.reference)
    assert record.cost.lock is None
    assert record.cost.attack is not None
    assert record.cost.attack.steps == 6
    assert record.cost.attack.flops == record.cost.reference.flops  # type: ignore[union-attr]
    assert len(record.trajectory) == 3
    assert not record.errors

    from leaderboards.verify import verify

    assert verify(tmp_path) == []


def test_a_complete_cell_is_found_and_an_equal_spec_gives_equal_scores(
    model: str, workshop: Workshop, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    spec = spec_of(model)
    first = run_cell(spec, out=tmp_path, workshop=workshop)
    assert run_cell(spec, out=tmp_path, workshop=workshop) == first
    fresh = Workshop(cache=Cache(tmp_path_factory.mktemp("other")), data_dir=None, progress=Progress(quiet=True))
    again = run_cell(spec, out=tmp_path / "again", workshop=fresh)
    assert again.provenance.weights == first.provenance.weights
    assert (again.score, again.recovery, again.trajectory) == (first.score, first.recovery, first.trajectory)
    items = [(tmp_path / part / "cells" / spec.id / "items.parquet").read_bytes() for part in (".", "again")]
    assert items[0] == items[1]


def test_every_attack_on_a_model_starts_from_the_one_score(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = Workshop(cache=Cache(tmp_path / "cache"), data_dir=None, progress=Progress(quiet=True))
    scored: list[float] = []
    start = Workshop.start
    monkeypatch.setattr(Workshop, "start", lambda self, spec, task, target, score_of: start(
        self, spec, task, target, lambda found: scored.append(score_of(found)) or scored[-1]))  # fmt: skip
    records = [run_cell(spec_of(model, attack={"learning_rate": rate}), out=tmp_path, workshop=workshop)
               for rate in (1e-3, 3e-3)]  # fmt: skip
    assert [point.score for record in records for point in record.trajectory[:1]] == scored * 2
    assert len(scored) == 1  # of eight runs
    assert records[0].trajectory[1:] != records[1].trajectory[1:]


def test_out_of_memory_and_over_budget_are_outcomes(model: str, workshop: Workshop, tmp_path: Path) -> None:
    small = run_cell(spec_of(model, budget="memory=100KiB"), out=tmp_path, workshop=workshop)
    assert small.status == "out_of_memory"
    assert "102400" in (small.status_reason or "")
    assert small.score.base.value is not None
    assert small.cost.reference is not None  # what it would have needed is on the bill
    assert (small.cost.reference.peak_device_bytes or 0) > 102400
    none = run_cell(spec_of(model, budget="tokens=10"), out=tmp_path, workshop=workshop)
    assert none.status == "over_budget"


def test_a_smaller_budget_is_enforced(model: str, workshop: Workshop, tmp_path: Path) -> None:
    record = run_cell(spec_of(model, budget="steps=3"), out=tmp_path, workshop=workshop)
    assert record.cost.attack is not None
    assert (record.cost.attack.steps, record.cost.reference.steps) == (3, 3)  # type: ignore[union-attr]


class Raises(Attack):
    """An attack that raises, for this test."""

    Settings = TrainSettings

    def attack(self, released: Released, context: AttackContext) -> Attacked:
        raise RuntimeError("a plug-in's own bug")


class Idle(Attack):
    """An attack that trains nothing but says it did, for this test."""

    Settings = TrainSettings

    def attack(self, released: Released, context: AttackContext) -> Attacked:
        from harness.training import TrainResult

        with context.meter.stage("attack"):
            result = TrainResult(steps=2, losses=[1.0, 1.0], trained=["a"], unmoved=["a"])
        return Attacked(model=released.model, training=result, targets=["a"])


def test_a_plugin_that_raises_is_a_failed_cell_with_the_traceback(
    model: str, workshop: Workshop, tmp_path: Path
) -> None:
    from harness import registry

    registry.attacks().add("raises", Raises)
    spec = spec_of(model).model_copy(update={"attack": {"name": "raises", **TrainSettings().model_dump()}})
    record = run_cell(spec, out=tmp_path, workshop=workshop)
    assert (record.status, record.status_reason) == ("failed", "RuntimeError: a plug-in's own bug")
    assert "Traceback" in (tmp_path / "cells" / record.id / "log.txt").read_text()
    assert run_cell(spec, out=tmp_path, workshop=workshop).provenance.started is not None  # a failed cell is run again


def test_an_attack_that_did_not_attack_carries_error_flags(model: str, workshop: Workshop, tmp_path: Path) -> None:
    from harness import registry

    registry.attacks().add("idle", Idle)
    spec = spec_of(model).model_copy(update={"attack": {"name": "idle", **TrainSettings().model_dump()}})
    record = run_cell(spec, out=tmp_path, workshop=workshop)
    flags = {flag.flag for flag in record.errors}
    assert {"unmoved", "attacked_is_locked", "reference_is_base", "loss_not_falling"} <= flags


def test_a_record_of_another_spec_under_the_same_id_is_refused(model: str, workshop: Workshop, tmp_path: Path) -> None:
    spec = spec_of(model)
    record = run_cell(spec, out=tmp_path, workshop=workshop)
    folder = tmp_path / "cells" / record.id
    raw = json.loads((folder / "record.json").read_text())
    raw["spec"]["seed"] = 99
    raw["seal"] = seal_of(raw)
    (folder / "record.json").write_text(json.dumps(raw))
    with pytest.raises(UsageError, match="another spec with the same id"):
        run_cell(spec, out=tmp_path, workshop=workshop)


def test_an_interrupted_cell_says_so_and_is_run_again(model: str, workshop: Workshop, tmp_path: Path) -> None:
    class Interrupting(Workshop):
        def run(self, *arguments: Any, **named: Any) -> Any:
            raise KeyboardInterrupt

    spec = spec_of(model, seed=5)
    with pytest.raises(KeyboardInterrupt):
        run_cell(
            spec, out=tmp_path, workshop=Interrupting(cache=workshop.cache, data_dir=None, progress=workshop.progress)
        )
    half = read_record(tmp_path / "cells" / spec.id)
    assert half is not None
    assert half.status == "interrupted"
    assert half.score.base.value is not None
    assert run_cell(spec, out=tmp_path, workshop=workshop).status == "complete"


@pytest.mark.slow
def test_killed_at_any_moment_and_run_again_finishes_with_the_same_scores(model: str, tmp_path: Path) -> None:
    config = tmp_path / "spec.json"
    config.write_text(spec_of(model).model_dump_json())
    command = [
        sys.executable,
        "-m",
        "harness.cli.main",
        "run",
        "--config",
        str(config),
        "--quiet",
        "--json",
        "--out",
        str(tmp_path / "killed"),
        "--cache",
        str(tmp_path / "cache"),
    ]
    for wait in (4.0, 7.0, 9.0, 11.0):  # wherever these fall on this machine, the promise is the same
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for folder in (tmp_path / "killed" / "cells").glob("*"):
            assert (record := read_record(folder)) is None or record.status == "complete"
    finished = Record.model_validate_json(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    straight = subprocess.run(
        [*command[:-3], str(tmp_path / "straight"), "--cache", str(tmp_path / "cache2")],
        check=True,
        capture_output=True,
        text=True,
    )
    other = Record.model_validate_json(straight.stdout)
    assert finished.status == other.status == "complete"
    assert (finished.score, finished.recovery) == (other.score, other.recovery)
    assert finished.provenance.weights == other.provenance.weights


OUTCOMES = [({}, "complete", 4), ({"memory": 600 << 10}, "out_of_memory", 1)]


@pytest.mark.parametrize(("budget", "status", "attacks"), OUTCOMES)
def test_no_model_outlives_its_part_of_the_cell(
    model: str, budget: dict[str, int], status: str, attacks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Base and locked model are gone when the attacks start, an attacked one when the next starts and the cell ends,
    out of memory or not: on a GPU what is kept would be missing to the next."""
    import gc
    import weakref

    import harness.models.load as loading

    with suppress(ImportError):  # what it logs at import holds every frame of the importer, and pytest holds the log
        import bitsandbytes  # noqa: F401

    real, alive = loading.load_model, []
    born: list[weakref.ref[Any]] = []

    def living() -> int:
        gc.collect()
        return sum(ref() is not None for ref in born)

    def load(*args: Any, **options: Any) -> Released:
        alive.append(living())
        found = real(*args, **options)
        born.append(weakref.ref(found.model))
        return found

    monkeypatch.setattr(loading, "load_model", load)
    workshop = Workshop(cache=Cache(tmp_path / "cache"), data_dir=None, progress=Progress(quiet=True))
    spec = spec_of(model, budget=budget, defense={"name": "specdef_reparam"})
    record = run_cell(spec, out=tmp_path, workshop=workshop)
    assert record.status == status
    assert living() == 0
    assert alive[-attacks:] == [0] * attacks
    assert len(alive) > attacks
