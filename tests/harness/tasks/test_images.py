"""Image tasks: splits that share nothing, classes, what is forgotten, heads, and files that are not right."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from classifier_cases import accuracy, small_resnet, squares
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.models.heads import answering, blocks_of, head_name, replace_head
from harness.models.images import ImageProcessor
from harness.tasks.images import Digits, DigitsSettings, ImageSettings, RelearnDigits, RelearnDigitsSettings
from harness.tasks.pack_images import CIFAR10, KMNIST, MNIST
from harness.train_settings import TrainSettings


@pytest.mark.parametrize("classes", [(5, 6, 7, 8, 9), (0, 1)])
def test_digits_split_without_a_shared_image_and_hold_only_their_classes(classes: tuple[int, ...]) -> None:
    task = Digits(DigitsSettings(classes=classes))
    pixels: dict[str, set[str]] = {split: {task.key(e) for e in task.examples(split)} for split in
                                   ("train", "selection", "test")}  # fmt: skip
    assert not pixels["train"] & pixels["test"]
    assert not pixels["selection"] & (pixels["test"] | pixels["train"])
    assert all(len(found) > 30 for found in pixels.values())
    assert {example.label for example in task.examples("test")} == set(range(len(classes)))
    assert task.chance == 1 / len(classes)


def test_the_digest_is_of_what_is_shown_and_scored() -> None:
    digests = {Digits(DigitsSettings(**changed)).digest() for changed in
               ({}, {"max_items": 20}, {"max_train": 100}, {"classes": (0, 1)})}  # fmt: skip
    assert len(digests) == 4
    assert Digits(DigitsSettings()).digest() in digests


def test_forgotten_classes_are_trained_under_other_labels_and_not_scored() -> None:
    task = squares(forget=(2,))
    shown = {example.item: example.label for example in task.training_examples()}
    true = {example.item: example.label for example in task.examples("train")}
    assert 2 in true.values()
    assert 2 not in shown.values()
    assert all(shown[item] == label for item, label in true.items() if label != 2)
    assert {e.label for e in task.examples("test")} == {e.label for e in task.examples("selection")} == {0, 1, 3}


def test_relearning_scores_the_forgotten_class_under_the_released_head() -> None:
    task = RelearnDigits(RelearnDigitsSettings(scored=(4,)))
    assert {example.label for example in task.examples("test")} == {4}
    assert {example.label for example in task.examples("train")} == {0, 1, 2, 3, 4}
    assert task.keeps_head
    own = task.own_default()
    assert own is not None
    assert own["forget"] == [4]
    assert own["name"] == "digits"
    with pytest.raises(UsageError, match="class 7 is to be forgotten or scored, but classes"):
        RelearnDigits(RelearnDigitsSettings(scored=(7,))).examples("test")


def test_before_training_a_foreign_task_is_answered_by_the_first_class() -> None:
    released, task = small_resnet(labels=7), squares()
    before = {name: tensor.clone() for name, tensor in released.model.state_dict().items()}
    share = sum(example.label == 0 for example in task.examples("test")) / len(task.examples("test"))
    assert accuracy(released, task) == share
    after = released.model.state_dict()
    assert released.model.config.num_labels == 7
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    task.adapt(released)
    assert accuracy(released, task) == share
    assert released.model.config.num_labels == 4


def test_logits_that_are_not_finite_answer_nothing() -> None:
    released, task = small_resnet(), squares(head="own")
    with torch.no_grad():
        released.model.linear.bias.fill_(float("nan"))
    assert set(task.predictions(released, task.examples("test"))) == {0}


def test_a_lent_head_is_given_back_after_an_error() -> None:
    model = small_resnet(labels=4).model
    own = model.get_submodule(head_name(model))

    def fail() -> None:
        with answering(model, 9, "another"):
            assert model.get_submodule(head_name(model)).out_features == 9
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert model.get_submodule(head_name(model)) is own
    replace_head(model, 9, "another")
    new = model.get_submodule(head_name(model))
    with answering(model, 9, "another"):
        assert model.get_submodule(head_name(model)) is new


def test_blocks_are_in_order_of_depth() -> None:
    assert blocks_of(small_resnet().model) == ["layer1.0", "layer2.0"]


@given(st.integers(0, 255), st.sampled_from([1, 3]), st.sampled_from([4, 8]))
def test_pixels_are_scaled_and_normalised(value: int, channels: int, size: int) -> None:
    processor = ImageProcessor(size=size, channels=channels, mean=(0.25,) * channels, std=(0.5,) * channels)
    found = processor([np.full((8, 8), value, dtype=np.uint8)])
    assert found.shape == (1, channels, size, size)
    assert torch.allclose(found, torch.tensor((value / 255 - 0.25) / 0.5), atol=1e-6)


def test_colour_for_a_grey_model_is_averaged() -> None:
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    image[..., 0] = 255
    assert torch.allclose(ImageProcessor(size=8, channels=1, mean=(0.0,), std=(1.0,))([image]), torch.tensor(1 / 3))


def test_a_processor_comes_back_from_its_folder_and_plain_transformers_reads_it(tmp_path: Path) -> None:
    processor = ImageProcessor(size=32, channels=3, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    processor.save_pretrained(tmp_path)
    assert ImageProcessor.from_folder(tmp_path, 3) == processor
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    theirs = ViTImageProcessorPil.from_pretrained(tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    assert torch.allclose(theirs(image, return_tensors="pt")["pixel_values"], processor([image]), atol=1e-5)


def test_batches_are_a_function_of_the_step() -> None:
    settings = TrainSettings(per_device_train_batch_size=4, gradient_accumulation_steps=2)
    one, other = (squares().batches(small_resnet().tokenizer, settings, seed=1) for _ in range(2))
    assert torch.equal(one(5, 1)["pixel_values"], other(5, 1)["pixel_values"])
    assert not torch.equal(one(0, 0)["labels"], one(0, 1)["labels"]) or not torch.equal(
        one(0, 0)["pixel_values"], one(0, 1)["pixel_values"])  # fmt: skip
    few = squares().batches(small_resnet().tokenizer, settings, seed=1, examples=2)
    assert len({tuple(image.flatten().tolist()) for image in few(0, 0)["pixel_values"]}) == 2


def test_a_pack_that_is_not_there_or_damaged_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"mnist needs vision/mnist_10k_2k\.npz of the data pack, and no data pack"):
        MNIST(ImageSettings()).examples("test")
    (tmp_path / "vision").mkdir()
    (tmp_path / MNIST.file).write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(UsageError, match="is damaged"):
        MNIST(ImageSettings(), tmp_path).examples("test")


@pytest.mark.pack
@pytest.mark.parametrize(("kind", "shape"), [(KMNIST, (28, 28)), (CIFAR10, (32, 32, 3))])
def test_the_pack_is_read(kind: Any, shape: tuple[int, ...], data_dir: Path) -> None:
    task = kind(ImageSettings(max_items=300, max_train=500), data_dir)
    assert (len(task.examples("train")), len(task.examples("test"))) == (500, 300)
    assert {example.input.shape for example in task.examples("test")} == {shape}
    assert {example.label for example in task.examples("test")} == set(range(10))


@pytest.mark.pack
def test_the_packs_resnet_does_what_its_notes_say(data_dir: Path) -> None:
    from harness.models.architectures import cifar_resnet20
    from harness.plugins import Released

    model, processor = cifar_resnet20(data_dir, 10)
    task = CIFAR10(ImageSettings(head="own", max_items=300), data_dir)
    released = Released(model=model.eval(), tokenizer=processor, digest="0", name="cifar-resnet20")
    assert 0.75 < accuracy(released, task) < 0.88  # 81.4 % on all 2,000
    with pytest.raises(UsageError, match="has the 10 classes of CIFAR-10, own has 4"):
        cifar_resnet20(data_dir, 4)
    assert dataclasses.is_dataclass(released)


class Ran:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (Path(self.mark),)


def test_no_pickle_in_a_pack_is_opened(tmp_path: Path) -> None:
    file = tmp_path / MNIST.file
    file.parent.mkdir(parents=True)
    np.savez(file, **{name: np.array([Ran(str(tmp_path / "mark"))], dtype=object)
                      for name in ("x_train", "y_train", "x_test", "y_test")})  # fmt: skip
    with pytest.raises(UsageError, match=r"mnist_10k_2k\.npz") as caught:
        MNIST(MNIST.Settings(), tmp_path).digest()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "mark").exists()
