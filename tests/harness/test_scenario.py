"""Classifiers from spec to record, what is refused before anything runs, and that language models are left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.cache import Cache
from harness.cell import run_cell
from harness.cli.main import main
from harness.errors import UsageError
from harness.planning.grid import plan
from harness.progress import Progress
from harness.records.recheck import recheck
from harness.records.record import Record
from harness.spec import Spec, resolve
from harness.workshop import Workshop
from leaderboards.load import load_results
from leaderboards.summary import cell_summary
from leaderboards.verify import verify

DIGITS: dict[str, Any] = {"model": "resnet-tiny", "task": "digits", "attack": "full"}
QUICK: dict[str, Any] = {
    "model": {"name": "resnet-tiny",
              "training": {"max_steps": 60, "unlearn_steps": 60, "unlearn_learning_rate": 5e-3}}, "replicates": 1,
    "own": {"max_items": 80}, "attack": {"name": "full", "max_steps": 40, "eval_points": 2},
}  # fmt: skip


def run(place: Path, **changes: Any) -> Record:
    workshop = Workshop(cache=Cache(place / "cache"), data_dir=None, progress=Progress(quiet=True))
    return run_cell(resolve(QUICK | changes), out=place / "results", workshop=workshop)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scenario")


def test_a_language_models_spec_has_nothing_of_a_classifier() -> None:
    values = resolve({"defense": "dlr", "attack": "lora"}).model_dump(mode="json")
    assert "own" not in values
    assert "training" not in values["model"]
    assert "corpus" in values
    assert "utility" in values


def test_a_classifiers_spec_is_complete_and_comes_back_from_its_record() -> None:
    spec = resolve(DIGITS)
    values = spec.model_dump(mode="json")
    assert values["own"]["classes"] == [0, 1, 2, 3, 4]
    assert values["own"]["head"] == "own"
    assert values["model"]["training"]["max_steps"] == 300
    assert "corpus" not in values
    assert "utility" not in values
    assert Spec.parse(values, "spec").id == spec.id
    assert resolve(DIGITS | {"own": {"classes": [0, 1]}}).id != spec.id
    assert resolve(DIGITS).attack["per_device_train_batch_size"] == 32  # the task's defaults, where none are given
    assert resolve(DIGITS | {"attack": {"name": "full", "max_steps": 7}}).attack["max_steps"] == 7


def test_a_relearning_task_says_what_the_released_model_forgot() -> None:
    spec = resolve(DIGITS | {"task": {"name": "relearn_digits", "scored": [2]}})
    assert spec.own is not None
    assert spec.own["forget"] == [2]


@pytest.mark.parametrize(("changes", "message"), [
    ({"defense": "dlr"}, "defense 'dlr' is for causal_lm, and task 'digits' is image_classification; defenses for it: "
                         "none, specdef"),
    ({"defense": "specdef_reparam"}, "defense 'specdef_reparam' is for causal_lm and sequence_classification"),
    ({"defense": "specdef+dlr"}, r"defense 'specdef\+dlr' is for causal_lm, and"),
    ({"attack": "redistill"}, "attack 'redistill' is for causal_lm, and task 'digits' is image_classification"),
    ({"model": "tiny"}, "model 'tiny' is causal_lm, and task 'digits' is image_classification; models for it: "),
    ({"task": "python_source"}, "model 'resnet-tiny' is image_classification, and task 'python_source' is causal_lm"),
    ({"utility": {"tasks": "minimal_pairs"}}, "utility=.*only a language model has one"),
    ({"corpus": "wikitext2"}, "corpus='wikitext2': only a language model has one"),
    ({"own": "mrpc"}, "own='mrpc' is sequence_classification, and task 'digits' is image_classification"),
    ({"own": "shakespeare"}, "own='shakespeare' is causal_lm"),
    ({"own": {"classes": [1]}}, r"own.classes=\[1\]"),
    ({"own": 3}, "own=3: expected a task's name"),
    ({"model": {"name": "resnet-tiny", "training": {"steps": 3}}}, "unknown setting of model.training 'steps'"),
    ({"model": {"name": "cifar-resnet20", "training": {"max_steps": 3}}}, "is a trained classifier already"),
])  # fmt: skip
def test_what_does_not_go_together_is_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        resolve(DIGITS | changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("changes", [{"own": "digits"}, {"model": {"name": "tiny", "training": {"max_steps": 3}}}])
def test_a_language_model_has_no_own_task(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="only a classifier has one, and task 'python_source' is causal_lm"):
        resolve({"attack": "full"} | changes)


def test_a_model_without_a_known_task_must_name_one(tmp_path: Path) -> None:
    from classifier_cases import small_resnet

    released = small_resnet()
    released.model.save_pretrained(tmp_path)
    released.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match=r"own is missing: which task the classifier .* was made for"):
        resolve(DIGITS | {"model": str(tmp_path)})
    spec = resolve(DIGITS | {"model": str(tmp_path), "own": {"name": "digits", "classes": [0, 1, 2, 3]}})
    assert spec.model.training is None
    assert spec.model.digest


def test_a_suite_has_the_attacks_that_can_attack_a_classifier() -> None:
    found = [spec.attack["name"] for spec in plan({}, DIGITS | {"attack": "standard", "defense": "specdef"})]
    assert "linear_probe" in found
    assert "undo_specdef" in found
    assert not {"redistill", "frozen_mlp", "undo_specdef_reparam"} & set(found)
    language = [spec.attack["name"] for spec in plan({}, {"attack": "standard"})]
    assert "linear_probe" not in language
    assert "redistill" in language


def test_the_command_line_refuses_before_it_loads_anything(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = ["run", "--model", "resnet-tiny", "--task", "digits", "--attack", "full", "--defense", "dlr"]
    assert main([*command, "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_lock_on_an_image_classifier_from_spec_to_record(place: Path) -> None:
    lock = {"name": "specdef", "retain": "task", "k": 1, "max_steps": 20, "per_device_train_batch_size": 16}
    record = run(place, task="digits", defense=lock)
    assert record.status == "complete", record.status_reason
    assert not [flag for flag in record.validity if flag.severity == "error"]
    score = record.score
    assert score.base.value == score.locked.value  # a zero head on either
    assert score.reference.value is not None
    assert score.reference.value > 0.4  # of 0.19 before
    base, locked = record.utility.base, record.utility.locked
    assert base is not None
    assert base.tasks["digits"].score.value is not None
    assert base.tasks["digits"].score.value > 0.8
    assert locked is not None
    assert locked.retention is not None
    assert record.utility.attacked is None  # under the attacker's head there is nothing of the owner's to measure
    assert record.utility.collapsed is None
    assert record.fidelity.kl is not None
    assert record.fidelity.kl > 0
    assert record.cost.attack is not None
    assert record.cost.attack.tokens == 40 * 32
    assert record.cost.lock is not None
    assert record.cost.lock.forward_flops > 0
    assert "digits" in cell_summary(record)
    assert record.cost_to_recover["0.5"].reason is not None or record.cost_to_recover["0.5"].flops


def test_relearning_keeps_the_released_head_and_its_utility(place: Path) -> None:
    record = run(place, task={"name": "relearn_digits", "scored": [3]}, defense="none")
    assert record.status == "complete", record.status_reason
    assert record.score.base.value is not None
    assert record.score.base.value < 0.2
    assert record.score.reference.value is not None
    assert record.score.reference.value > 0.8
    assert record.utility.attacked is not None
    assert record.utility.collapsed is not None
    assert record.utility.base is not None
    assert record.utility.base.tasks["digits"].score.value is not None
    assert record.utility.base.tasks["digits"].score.value > 0.8  # but not the rest


def test_records_of_classifiers_are_verified(place: Path) -> None:
    assert verify(place / "results") == []
    mismatches, notes = recheck(load_results(place / "results").cells, data_dir=None, cache=place / "cache")
    assert mismatches == []
    bases = [note for note in notes if note.startswith("provenance.weights.base: rechecked")]
    assert bases
    assert "not in this cache" not in bases[0]


def test_a_classifier_is_made_once_and_the_same_again(place: Path, tmp_path: Path) -> None:
    spec = resolve(QUICK | {"task": "digits", "defense": "none"})
    made = []
    for folder in (place / "cache", tmp_path / "cache"):
        workshop = Workshop(cache=Cache(folder), data_dir=None, progress=Progress(quiet=True))
        made.append(workshop.base(spec).digest)
    assert made[0] == made[1]
    assert len(list((place / "cache" / "bases").glob("*/model"))) == 2  # with everything, and with a digit forgotten
