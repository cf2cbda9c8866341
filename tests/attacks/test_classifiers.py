"""Attacks and SpecDef on a small image classifier: what trains, what stays, and that the lock does what it says."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from classifier_cases import accuracy, attacked, lock_context, small_resnet, squares, trained
from torch import nn

from defenses.specdef import SpecDef, SpecDefSettings
from harness.models.digest import weights_digest
from harness.models.load import load_model
from harness.models.save import save_released
from harness.plugins import Released
from harness.targets import adaptable_layers

OWN = squares(head="own")


@pytest.fixture(scope="module")
def base() -> Released:
    return trained(small_resnet(), OWN)


def parameters(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


@pytest.mark.parametrize(("name", "frozen"), [("full", ()), ("lora", ()), ("partial_depth", ("conv1", "layer1")),
                                              ("linear_probe", ("conv1", "layer1", "layer2"))])  # fmt: skip
def test_an_attack_learns_a_foreign_task_and_leaves_alone_what_it_says(
    name: str, frozen: tuple[str, ...], base: Released, tmp_path: Path
) -> None:
    task = squares(classes=(3, 1, 2, 0))  # other labels for the same corners: the head must be new
    before = parameters(base.model)
    found = attacked(name, base, task, tmp_path, learning_rate=2e-2)
    after = parameters(found.model)
    assert not found.training.unmoved
    assert not found.training.missing_gradients
    moved = {key for key, value in after.items() if value.shape != before[key].shape or not value.equal(before[key])}
    assert not [key for key in moved if key.startswith(frozen)] if frozen else moved
    assert any(key.startswith("linear") for key in moved)
    assert accuracy(dataclasses.replace(base, model=found.model), task) > 0.9
    assert isinstance(found.model.linear, nn.Linear)  # adapters are merged


def test_adapters_go_on_every_convolution_and_the_head_trains_whole(base: Released, tmp_path: Path) -> None:
    layers = adaptable_layers(base.model)
    convolutions = [name for name, module in base.model.named_modules() if isinstance(module, nn.Conv2d)]
    assert layers == convolutions
    found = attacked("lora", base, squares(), tmp_path)
    assert list(found.targets) == convolutions
    heads = [name for name in found.training.trained if "lora_" not in name]
    assert len(heads) == 2
    assert all("modules_to_save" in name for name in heads)


def test_a_convolutions_rank_is_not_cut_to_its_kernel(base: Released) -> None:
    from attacks.lora import thin

    names = adaptable_layers(base.model)
    assert thin(base.model, names, 64) == {9: ["conv1"], 16: names[1:3], 32: names[3:]}


@pytest.fixture(scope="module")
def locked(base: Released, tmp_path_factory: pytest.TempPathFactory) -> tuple[Released, dict[str, Any]]:
    settings = SpecDefSettings(retain="both", k=1, alpha=0.5, max_steps=60, learning_rate=5e-3,
                               per_device_train_batch_size=16)  # fmt: skip
    copied = dataclasses.replace(base, model=copy.deepcopy(base.model))
    found = SpecDef(settings).lock(copied, lock_context(OWN, tmp_path_factory.mktemp("lock")))
    digest = weights_digest(found.model)
    return dataclasses.replace(copied, model=found.model.eval(), digest=digest), found.report


def test_the_lock_inflates_and_keeps_the_classifier(base: Released, locked: tuple[Released, dict[str, Any]]) -> None:
    model, report = locked
    assert report["after"]["mean_top"] > 2 * report["before"]["mean_top"]
    assert set(report["after"]["matrices"]) >= {"conv1.weight", "layer2.0.conv2.weight", "linear.weight"}
    assert accuracy(model, OWN) > 0.95
    assert report["heldout"]["accuracy_locked"] > 0.9
    assert report["after"]["sharpness"] > 0


def test_a_locked_classifier_is_one_model_however_loaded(
    locked: tuple[Released, dict[str, Any]], tmp_path: Path
) -> None:
    from transformers import AutoModelForImageClassification

    model, _ = locked
    lock = {"defense": "specdef", "settings": {}}
    digest = save_released(model.model, model.tokenizer, tmp_path / "m", dtype="float32", lock=lock, base_name="own",
                           base_digest="0", defense=SpecDef(SpecDefSettings()))  # fmt: skip
    ours = load_model(str(tmp_path / "m"))
    assert ours.digest == digest
    assert ours.lock is not None
    assert ours.lock["base_architecture"] == "CifarResNetForImageClassification"
    assert accuracy(ours, OWN) == accuracy(model, OWN)
    images = {"pixel_values": ours.tokenizer([example.input for example in OWN.examples("test")[:8]])}
    theirs = AutoModelForImageClassification.from_pretrained(tmp_path / "m").eval()
    assert torch.equal(theirs(**images).logits, ours.model(**images).logits)
    assert "accuracy" in (tmp_path / "m" / "README.md").read_text()


def test_the_undo_brings_the_spectra_down_and_the_features_back(
    base: Released, locked: tuple[Released, dict[str, Any]], tmp_path: Path
) -> None:
    model, report = locked
    found = attacked("undo_specdef", model, squares(), tmp_path, distil_steps=30, learning_rate=1e-3)
    repaired = found.report["repaired"]
    assert repaired
    for name, values in repaired.items():
        assert values["ceiling"] < report["after"]["matrices"][name]["top"][0]
    assert found.report["distil_steps"] == 30
    assert found.report["distil_losses"][1] < found.report["distil_losses"][0]
    assert not attacked("undo_specdef", base, squares(), tmp_path, max_steps=5).report["repaired"]


def test_the_repair_does_not_depend_on_the_optimizer_of_the_fine_tuning(
    locked: tuple[Released, dict[str, Any]], tmp_path: Path
) -> None:
    def losses(**settings: Any) -> Any:
        found = attacked("undo_specdef", locked[0], squares(), tmp_path, distil_steps=4, max_steps=1, **settings)
        return found.report["distil_losses"]

    assert losses(optim="sgd") == losses(optim="adamw_torch")


def test_the_undo_stays_within_a_budget_of_flops(locked: tuple[Released, dict[str, Any]], tmp_path: Path) -> None:
    from classifier_cases import attack_context

    from attacks.undo_specdef import UndoSpecDef, UndoSpecDefSettings

    model, task = locked[0], squares()
    target = task.adapt(dataclasses.replace(model, model=copy.deepcopy(model.model)))
    context = attack_context(task, tmp_path, flops=1_500_000_000)
    settings = UndoSpecDefSettings(max_steps=1000, per_device_train_batch_size=16, eval_points=0)
    UndoSpecDef(settings).attack(target, context)
    assert context.meter.total.flops <= 1_500_000_000
    assert context.meter.bills["attack"].steps > 0
