"""Models known by name. Imports no torch: `harness list` reads this."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from harness.kinds import Kind
from harness.settings import Settings


class KnownModel(Settings):
    """Where a named model lives and what it is."""

    name: str
    """Name for `--model`."""
    summary: str
    """One line."""
    parameters: int
    """Number of parameters."""
    licence: str
    """SPDX identifier of the weights."""
    packaged: str | None = None
    """Folder inside the package `harness.models`, for a shipped model."""
    pack: str | None = None
    """Folder inside the data pack."""
    hub: str | None = None
    """Hub id."""
    sha256: dict[str, str] = Field(default_factory=dict)
    """sha256 by file name, checked at load."""
    kind: Kind = "causal_lm"
    """What it is; a causal language model also gives the body of a sequence classifier."""
    build: str | None = None
    """`module:function` of a classifier that is made here (see `harness.models.architectures`)."""
    trained: bool = False
    """Whether `build` gives trained weights; else the owner trains them on `own`."""
    own: dict[str, Any] | None = None
    """The task that a released classifier of this name does, unless the spec names another."""
    training: dict[str, Any] = Field(default_factory=dict)
    """Settings of the owner's training that differ from `harness.owner_settings.OwnerTraining`'s."""


STORIES260K = KnownModel(
    name="stories260k", summary="Llama, 260 k parameters, children's stories (data pack)", parameters=260_032,
    licence="MIT", pack="models/stories260k",
    sha256={"model.safetensors": "407a7c581bdd66972383ce9ad24857713fb98786d06ea564a2fe9b34ebe77dfd"},
)  # fmt: skip
SMOLLM2_135M = KnownModel(
    name="smollm2-135m", summary="SmolLM2-135M-Instruct (harness fetch; without a hub, de-quantised Q4_1)",
    parameters=134_515_008, licence="Apache-2.0", hub="HuggingFaceTB/SmolLM2-135M-Instruct",
)  # fmt: skip
TINY = KnownModel(
    name="tiny", summary="Llama, 1.25 M parameters, pretrained by this project (shipped)", parameters=1_246_592,
    licence="Apache-2.0", packaged="tiny",
    sha256={
        "config.json": "69072432e8024fa3c124eca3086e8318cf669b87b59d8ac405e4adacbc3b1334",
        "generation_config.json": "ce42f833eee1abaae685335e04eadea08a9cb4929c19e9b13ee05cabe78f3224",
        "model.safetensors": "1760f75fc0cff158584f0ad4c3509563e25913b647723be03e25c6ee08d67f86",
        "tokenizer.json": "ced606addf5308cbaf0281d339542373b88709f7742d8278578c648f2fac5a32",
        "tokenizer_config.json": "6ff8d9f6bd227bed17293eb3554db72a31e82daa6f127d7689c95bd65c4ac3ad",
    },
)  # fmt: skip


def _built(name: str, kind: Kind, parameters: int, note: str, **more: Any) -> KnownModel:
    build = f"harness.models.architectures:{name.replace('-', '_')}"
    return KnownModel(name=name, summary=note, parameters=parameters, kind=kind, build=build,
                      **{"licence": "Apache-2.0"} | more)  # fmt: skip


_MNIST = {"name": "mnist"}
_SMALL_IMAGES: dict[str, Any] = {"learning_rate": 1e-2, "max_steps": 300, "per_device_train_batch_size": 32}
RESNET_TINY = _built(
    "resnet-tiny", "image_classification", 18_965, "small ResNet for 8 x 8 digits, trained here on 0 to 4",
    own={"name": "digits", "classes": [0, 1, 2, 3, 4]}, training=_SMALL_IMAGES)  # fmt: skip
RESNET18 = _built("resnet18", "image_classification", 11_181_642, "ResNet-18, trained here on MNIST (data pack)",
                  own=_MNIST, training={**_SMALL_IMAGES, "learning_rate": 1e-3})  # fmt: skip
RESNET20 = _built("resnet20", "image_classification", 269_722, "CIFAR's ResNet-20, trained here on MNIST (data pack)",
                  own=_MNIST, training=_SMALL_IMAGES)  # fmt: skip
_CIFAR: dict[str, Any] = {"licence": "BSD-2-Clause", "trained": True, "own": {"name": "cifar10"},
                          "training": {"unlearn_learning_rate": 1e-3, "per_device_train_batch_size": 64}}  # fmt: skip
CIFAR_RESNET20 = _built("cifar-resnet20", "image_classification", 269_722, "ResNet-20 trained on CIFAR-10 (data pack)",
                        **_CIFAR)  # fmt: skip
CIFAR_RESNET56 = _built("cifar-resnet56", "image_classification", 853_018, "ResNet-56 trained on CIFAR-10 (data pack)",
                        **_CIFAR)  # fmt: skip
ENCODER_TINY = _built("encoder-tiny", "sequence_classification", 1_138_050, "BERT of 4 layers, trained on own task",
                      training={"learning_rate": 1e-3})  # fmt: skip
