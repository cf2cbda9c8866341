"""`--report_to`: curves and results reach the trackers, offline, and a tracker that fails ends nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harness import tracking
from harness.cli.main import main
from harness.errors import UsageError
from harness.spec import Spec
from harness.testing import byte_tokenizer, random_llama
from harness.tracking import NAMES, Reporting, flat, parse_names

SHORT = ["--limit=20", "--set=utility.perplexity_tokens=1500", "--set=replicates=1", "--set=attack.max_steps=4",
         "--set=attack.eval_points=1", "--set=attack.block_size=64", "--set=attack.per_device_train_batch_size=2",
         "--set=task.max_items=20", "--set=task.train_bytes=60000", "--json", "-q"]  # fmt: skip


class Fake:
    """A tracker that remembers, and can fail."""

    def __init__(self, fails: str = "") -> None:
        self.fails, self.config, self.logged, self.finished = fails, dict[str, Any](), list[Any](), False

    def _do(self, what: str) -> None:
        if self.fails == what:
            raise RuntimeError(f"{what} refused\nby the service")

    def start(self) -> None:
        self._do("start")

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.config = values

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._do("log")
        self.logged.append((step, values))

    def finish(self) -> None:
        self._do("finish")
        self.finished = True


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """In the place of W&B; by name of the run. `fails` says what the next ones do not do."""
    made: dict[str, Any] = {"fails": ""}

    def build(name: str, group: str, folder: Path) -> Fake:
        made[name] = Fake(made["fails"])
        return made[name]

    monkeypatch.setitem(tracking._BUILD, "wandb", build)
    monkeypatch.setattr("harness.probes.find_spec", lambda name: object())
    return made


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model's folder."""
    folder = tmp_path_factory.mktemp("tracked") / "model"
    random_llama().save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def command(model: Path, tmp_path: Path) -> list[str]:
    return ["run", "--model", str(model), "--attack", "full", "--out", str(tmp_path / "out"), "--cache",
            str(tmp_path / "cache"), *SHORT]  # fmt: skip


def test_every_run_of_a_cell_and_the_cell_itself_are_reported(
    model: Path, tmp_path: Path, fakes: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command(model, tmp_path), "--report_to", "wandb"]) == 0
    record = json.loads(capsys.readouterr().out)
    runs = {name.removeprefix(record["id"]): run for name, run in fakes.items() if name != "fails"}
    assert list(runs) == ["-lock", "-reference-1", "-attacked-1", ""]
    assert all(run.finished for run in runs.values())
    curve = [(step, values) for step, values in runs["-attacked-1"].logged if "attack/loss" in values]
    assert [step for step, _ in curve] == [1, 2, 3, 4]
    assert curve[-1][1]["tokens"] == record["cost"]["attack"]["tokens"] == 4 * 2 * 64
    assert curve[-1][1]["flops"] == record["trajectory"][-1]["flops"]
    scores = [values["attack/selection_score"] for _, values in runs["-attacked-1"].logged if len(values) == 1]
    assert scores == [point["score"] for point in record["trajectory"]]
    ((_, shown),) = runs[""].logged
    assert shown["score_attacked"] == record["score"]["attacked"]["value"]
    assert runs[""].config["attack.name"] == "full"


@pytest.mark.parametrize("fails", ["start", "log", "finish"])
def test_a_tracker_that_fails_is_left_out_with_a_warning(fakes: dict[str, Any], fails: str, tmp_path: Path) -> None:
    fakes["fails"] = fails

    def report() -> None:
        with Reporting(("wandb",), tmp_path).run("run", Spec()) as log:
            log({"loss": 1.0}, 1)
            log({"loss": 0.5}, 2)

    reason = f"wandb is left out from here on: RuntimeError: {fails} refused by"
    with pytest.warns(RuntimeWarning, match=reason) as said:
        report()
    assert len(said) == 1


def test_steps_never_go_back(fakes: dict[str, Any], tmp_path: Path) -> None:
    with Reporting(("wandb",), tmp_path).run("run", Spec()) as log:
        for step in (1, 2, 3, 0, 1, 2):  # a stage that undoes the lock, then the attack from its step 0
            log({"loss": 1.0}, step)
    assert [step for step, _ in fakes["run"].logged] == [1, 2, 3, 3, 4, 5]


def test_a_run_is_closed_when_the_attack_ends_early(fakes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InterruptedError), Reporting(("wandb",), tmp_path).run("run", Spec()):
        raise InterruptedError
    assert fakes["run"].finished


def test_names_are_checked_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("harness.probes.find_spec", lambda name: None)
    for text, reason in (("wnadb", "Did you mean 'wandb'"), ("mlflow", r"lockbench\[track\]")):
        with pytest.raises(UsageError, match=reason):
            parse_names(text)
        assert main(["run", "--report-to", text, "--dry-run"]) == 2
    assert parse_names(None) == parse_names("none") == parse_names("all") == parse_names("") == ()
    monkeypatch.setattr("harness.probes.find_spec", lambda name: object())
    assert parse_names("all") == NAMES
    assert parse_names("mlflow, wandb,mlflow") == ("mlflow", "wandb")


def test_a_spec_is_flat_and_holds_nothing_a_tracker_refuses() -> None:
    found = flat(Spec().model_dump(mode="json"))
    assert found["model.name"] == "tiny"
    assert {type(value) for value in found.values()} <= {bool, int, float, str}


@pytest.mark.slow
def test_the_real_trackers_offline(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("wandb", "tensorboard", "mlflow"):
        pytest.importorskip(module)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main([*command(model, tmp_path), "--report_to", "wandb,tensorboard,mlflow"]) == 0
    said = capsys.readouterr()
    record, logs = json.loads(said.out), tmp_path / "out" / "logs"
    assert "left out" not in said.err
    assert len(list(logs.glob("wandb/offline-run-*"))) == 4

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(logs / "tensorboard" / f"{record['id']}-attacked-1")).Reload()
    assert [event.step for event in events.Scalars("attack/loss")] == [1, 2, 3, 4]

    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{logs / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("lockbench")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {record["id"] + end for end in ("", "-lock", "-reference-1", "-attacked-1")}
    assert runs[record["id"]].data.metrics["score_attacked"] == pytest.approx(record["score"]["attacked"]["value"])
    assert runs[record["id"]].data.params["attack.name"] == "full"
    assert os.environ["WANDB_MODE"] == "offline"
