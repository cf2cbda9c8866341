"""Image classification, and scikit-learn's digits, which need no data pack.

A relearning task is a data set of which the released model has been made to forget classes: its score is the accuracy
on those. Imports no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from harness.errors import UsageError
from harness.kinds import Kind
from harness.tasks.classification import ClassificationSettings, ClassificationTask, Encoder, Example
from harness.tasks.content import bucket

if TYPE_CHECKING:
    import numpy as np
    import torch


class ImageSettings(ClassificationSettings):
    """Which classes there are, and which are forgotten or asked for."""

    classes: tuple[int, ...] = Field(tuple(range(10)), min_length=2)
    """Classes of the data set that are used, in the order of the labels."""
    forget: tuple[int, ...] = ()
    """Classes that the owner makes the model forget: trained with random other labels, and not scored."""
    scored: tuple[int, ...] = ()
    """Only these classes are scored; empty is all that are not forgotten."""


class ImageTask(ClassificationTask):
    """Images of one size, labelled."""

    kind: ClassVar[Kind] = "image_classification"
    attack_defaults: ClassVar[dict[str, Any]] = {"max_steps": 300, "per_device_train_batch_size": 32}
    needs_pack: ClassVar[bool] = True
    Settings = ImageSettings
    settings: ImageSettings

    def images(self) -> dict[str, tuple[Sequence[np.ndarray], Sequence[int]]]:
        """uint8 images and classes of `train` and `test`."""
        raise NotImplementedError

    @property
    def labels(self) -> int:
        """See `ClassificationTask`."""
        return len(self.settings.classes)

    def load(self) -> tuple[list[Example], list[Example]]:
        """See `ClassificationTask`."""
        chosen = self.settings
        label = {number: index for index, number in enumerate(chosen.classes)}
        if strange := [number for number in (*chosen.forget, *chosen.scored) if number not in label]:
            raise UsageError(f"class {strange[0]} is to be forgotten or scored, but classes={list(chosen.classes)}")
        splits = {split: [Example(f"{split}/{index}", image, label[int(number)])
                          for index, (image, number) in enumerate(zip(images, numbers, strict=True))
                          if int(number) in label]
                  for split, (images, numbers) in self.images().items()}  # fmt: skip
        return splits["train"], splits["test"]

    def examples(self, split: Any) -> list[Example]:
        """See `ClassificationTask`; the scored splits have the classes that are asked for."""
        found = super().examples(split)
        if split == "train" or not (self.settings.forget or self.settings.scored):
            return found
        asked = set(self.settings.scored or self.settings.classes) - set(self.settings.forget)
        return [example for example in found if self.settings.classes[example.label] in asked]

    def training_examples(self) -> list[Example]:
        """Forgotten classes get other labels, drawn by a stable hash (Graves et al. 2021, "Amnesiac ML")."""
        gone = {self.settings.classes.index(number) for number in self.settings.forget}
        kept = [index for index in range(self.labels) if index not in gone]
        return [example if example.label not in gone else
                example._replace(label=kept[bucket(example.item, len(kept), "forget")])
                for example in super().training_examples()]  # fmt: skip

    def key(self, example: Example) -> str:
        """Hash of the pixels."""
        return hashlib.sha256(example.input.tobytes()).hexdigest()

    def encoder(self, processor: Any, examples: Sequence[Example], size: int) -> Encoder:
        """Pixels, normalised as the released model wants them."""
        return _Pixels(processor, [example.input for example in examples])

    def own_default(self) -> dict[str, Any] | None:
        """A relearning task's classifier was made for the same data and has forgotten what is scored."""
        if not self.keeps_head:
            return None
        same = {"max_train": self.settings.max_train, "max_items": self.settings.max_items}
        return {"name": self.source_name, "classes": list(self.settings.classes), "forget": list(self.settings.scored),
                **same}  # fmt: skip

    source_name: ClassVar[str] = ""
    """The task of the same data set."""


class _Pixels(Encoder):
    def __init__(self, processor: Any, images: Sequence[np.ndarray]) -> None:
        self._processor, self._images = processor, images

    def __call__(self, rows: list[int]) -> dict[str, torch.Tensor]:
        return {"pixel_values": self._processor([self._images[row] for row in rows])}


class DigitsSettings(ImageSettings):
    """Half of the digits; the other half is the released model's."""

    classes: tuple[int, ...] = Field((5, 6, 7, 8, 9), min_length=2)
    """Digits that are used, in the order of the labels."""


class Digits(ImageTask):
    """scikit-learn's 8 x 8 handwritten digits; the attacker wants 5 to 9."""

    needs_pack: ClassVar[bool] = False
    Settings = DigitsSettings
    settings: DigitsSettings

    def images(self) -> dict[str, tuple[Sequence[np.ndarray], Sequence[int]]]:
        """All 1797 images; three tenths, by a stable hash, are the test split."""
        import numpy as np
        from sklearn.datasets import load_digits

        data = load_digits()
        pixels = (data.images * (255 / 16)).round().astype(np.uint8)
        test = [bucket(f"digits/{index}", 10) >= 7 for index in range(len(pixels))]
        return {split: ([image for image, mine in zip(pixels, test, strict=True) if mine == wanted],
                        [int(number) for number, mine in zip(data.target, test, strict=True) if mine == wanted])
                for split, wanted in (("train", False), ("test", True))}  # fmt: skip


class RelearnDigitsSettings(DigitsSettings):
    """One digit of the released model's five."""

    head: Literal["new", "own"] = "own"
    """The released model's head answers: the forgotten class is one of its own."""
    classes: tuple[int, ...] = Field((0, 1, 2, 3, 4), min_length=2)
    """The released model's digits."""
    scored: tuple[int, ...] = (3,)
    """The digits that the released model has been made to forget and the attacker wants back."""


class RelearnDigits(Digits):
    """Relearn a digit that the released classifier was made to forget."""

    Settings = RelearnDigitsSettings
    source_name: ClassVar[str] = "digits"
