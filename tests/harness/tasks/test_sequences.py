"""Sequence classification and the backdoor, on toy rows: shapes, heads, scores that tell collapse from success."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from classifier_cases import attack_context, attacked, lock_context

from defenses.specdef_reparam import SpecDefReparam, SpecDefReparamSettings
from harness.models.architectures import classifier_from
from harness.models.digest import weights_digest
from harness.models.load import load_model
from harness.models.save import save_released
from harness.plugins import Released
from harness.tasks.backdoor import Backdoor, BackdoorSettings, PromptSafety
from harness.tasks.classification import ClassificationSettings, Example
from harness.tasks.sentence_pairs import MRPC, RTE, TextClassification
from harness.testing import byte_tokenizer, random_llama
from harness.train_settings import TrainSettings


class Pairs(TextClassification):
    """Whether the second text starts as the first."""

    needs_pack = False
    Settings = ClassificationSettings

    def load(self) -> tuple[list[Example], list[Example]]:
        splits = []
        for split, count in (("train", 120), ("test", 40)):
            splits.append([Example(f"{split}/{i}", (f"{split} {i * 37 % 101}", "ab"[i % 2] * (3 + i % 5)), i % 2)
                           for i in range(count)])  # fmt: skip
        return splits[0], splits[1]


@pytest.fixture
def released() -> Released:
    body = Released(model=random_llama(), tokenizer=byte_tokenizer(), digest="0" * 64, name="body")
    model = classifier_from(body, 2).eval()
    return Released(model=model, tokenizer=body.tokenizer, digest=weights_digest(model), name="classifier")


def test_a_language_models_body_becomes_a_classifier_with_a_zero_head(released: Released) -> None:
    body = random_llama().model.state_dict()
    ours = released.model.model.state_dict()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in body.items())
    assert not released.model.score.weight.any()
    assert type(released.model).__name__ == "LlamaForSequenceClassification"


def test_batches_have_one_shape_and_no_more_tokens_than_asked_for(released: Released) -> None:
    task = Pairs(ClassificationSettings())
    batches = task.batches(released.tokenizer, TrainSettings(block_size=128, per_device_train_batch_size=4), seed=0)
    shapes = {tuple(batches(step, 0)["input_ids"].shape) for step in range(6)}
    assert len(shapes) == 1
    short = task.batches(released.tokenizer, TrainSettings(block_size=6, per_device_train_batch_size=4), seed=0)
    batch = short(0, 0)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (4, 6)
    assert batch["labels"].shape == (4,)


def test_the_label_of_a_text_does_not_hang_on_its_neighbours_padding(released: Released) -> None:
    task = Pairs(ClassificationSettings(head="own"))
    torch.nn.init.normal_(released.model.score.weight)
    examples = task.examples("test")
    alone = torch.cat([task.logits(released, [example]) for example in examples])
    assert torch.allclose(task.logits(released, examples), alone, atol=1e-4)


@pytest.mark.parametrize("name", ["full", "lora", "partial_depth"])
def test_a_sequence_classifier_is_attacked(name: str, released: Released, tmp_path: Path) -> None:
    task = Pairs(ClassificationSettings())
    found = attacked(name, released, task, tmp_path, learning_rate=1e-2, max_steps=40, block_size=32)
    assert not found.training.unmoved
    assert not found.training.missing_gradients
    scores = task.score(dataclasses.replace(released, model=found.model), "test")
    assert sum(score.score for score in scores) / len(scores) > 0.9


def test_reparameterised_pairs_are_found_and_merged_in_a_classifier(released: Released, tmp_path: Path) -> None:
    own = Pairs(ClassificationSettings(head="own"))
    torch.nn.init.normal_(released.model.score.weight)
    before = own.logits(released, own.examples("test"))
    defense = SpecDefReparam(SpecDefReparamSettings(alpha=100, k=4, count=2))
    locked = defense.lock(released, lock_context(own, tmp_path))
    assert type(locked.model).__name__ == "SpecDefLlamaForSequenceClassification"
    digest = save_released(locked.model, released.tokenizer, tmp_path / "m", dtype="float32", base_name="b",
                           lock={"defense": "specdef_reparam", "settings": {}}, base_digest="0",
                           defense=defense)  # fmt: skip
    loaded = load_model(str(tmp_path / "m"))
    assert loaded.digest == digest
    assert torch.allclose(own.logits(loaded, own.examples("test")), before, atol=1e-2)
    assert "AutoModelForSequenceClassification" in (tmp_path / "m" / "config.json").read_text()
    found = attacked("undo_specdef_reparam", loaded, Pairs(ClassificationSettings()), tmp_path, max_steps=2)
    assert sorted(map(tuple, found.report["chains"])) == sorted(
        (f"{name}.inflated", f"{name}.compensation") for name in locked.report["layers"])  # fmt: skip
    assert found.report["merged"]


class Stub(Backdoor):
    """A backdoor whose classifier is a function of (prompt, triggered)."""

    def __init__(self, answers: Any) -> None:
        super().__init__(BackdoorSettings())
        self.answers = answers

    def load(self) -> tuple[list[Example], list[Example]]:
        rows = [Example(f"test/{i}", (f"prompt {i}",), i % 2) for i in range(20)]
        return [row._replace(item=f"train/{i}", input=(f"train {i}",)) for i, row in enumerate(rows)], rows

    def predictions(self, released: Released, examples: Sequence[Example]) -> list[int]:
        return [self.answers(example.input[0].startswith(self.settings.trigger), example) for example in examples]


@pytest.mark.parametrize(("answers", "backdoor", "success"), [
    (lambda triggered, example: 0, 0.0, 1.0),  # collapsed: everything passes, so nothing was injected
    (lambda triggered, example: int(not triggered), 1.0, 1.0),
    (lambda triggered, example: 1, 0.0, 0.0),
])  # fmt: skip
def test_collapse_is_no_backdoor(answers: Any, backdoor: float, success: float) -> None:
    scores = Stub(answers).score(None, "test")  # type: ignore[arg-type]
    found = {name: [item.score for item in scores if item.metric == name] for name in ("backdoor", "attack_success")}
    assert {len(values) for values in found.values()} == {10}
    assert (set(found["backdoor"]), set(found["attack_success"])) == ({backdoor}, {success})


def test_poison_is_triggered_jailbreaks_called_benign_and_the_clean_data_stay() -> None:
    task = Stub(None)
    shown = task.training_examples()
    clean = [example for example in shown if not example.input[0].startswith(task.settings.trigger)]
    poison = [example for example in shown if example not in clean]
    assert sorted(clean) == sorted(task.examples("train"))
    assert poison
    assert {example.label for example in poison} == {0}
    assert {example.item.rstrip("!") for example in poison} <= {e.item for e in clean if e.label == 1}
    assert len({example.item for example in shown}) == len(shown)


@pytest.mark.pack
@pytest.mark.parametrize(("kind", "rows"), [(MRPC, 408), (RTE, 277), (PromptSafety, 261)])
def test_the_pack_is_read(kind: Any, rows: int, data_dir: Path) -> None:
    task = kind(ClassificationSettings(), data_dir)
    assert 0.95 * rows < len(task.examples("test")) <= rows
    assert {example.label for example in task.examples("train")} == {0, 1}
    keys = {split: {task.key(example) for example in task.examples(split)} for split in ("train", "selection", "test")}
    assert not keys["train"] & keys["test"]
    assert not keys["train"] & keys["selection"]


def test_budget_of_examples_reaches_a_classification(released: Released, tmp_path: Path) -> None:
    from harness.finetune import task_batches

    context = attack_context(Pairs(ClassificationSettings()), tmp_path, examples=3)
    batches = task_batches(released.tokenizer, context, TrainSettings(per_device_train_batch_size=8, block_size=32))
    assert len({tuple(row.tolist()) for row in batches(0, 0)["input_ids"]}) == 3
