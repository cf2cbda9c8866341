"""Architectures that are known by name and made here, for scenarios whose released classifier its owner trains.

A builder gets the data pack and the number of labels and gives (model, processor), weights at random under torch's
global generator, which the caller seeds; or, for the pack's CIFAR ResNets, the trained weights of their authors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.models.images import ImageProcessor

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CIFAR_FILES = {3: ("resnet20", "02926273efb1deadb6dc654c7087baea932ef2026d9f854680d6858146d85838"),
               9: ("resnet56", "cf29b05e3acebb9dc28868ebd84a604ff452971bb6770f22beaff48708079aee")}  # fmt: skip
"""Name and sha256 of the pack's file by blocks a stage."""


def resnet_tiny(data_dir: Path | None, labels: int) -> tuple[Any, ImageProcessor]:
    """Two stages of one basic block, 16 and 32 channels, for grey images of 8 x 8."""
    from harness.models.cifar_resnet import CifarResNetConfig, CifarResNetForImageClassification

    config = CifarResNetConfig(blocks=1, widths=(16, 32), num_channels=1, num_labels=labels)
    return CifarResNetForImageClassification(config), ImageProcessor(size=8, channels=1)


def resnet18(data_dir: Path | None, labels: int) -> tuple[Any, ImageProcessor]:
    """ResNet-18 (He et al. 2016) with its ImageNet stem, on images of 32 x 32."""
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(layer_type="basic", num_channels=3, embedding_size=64, hidden_sizes=[64, 128, 256, 512],
                          depths=[2, 2, 2, 2], num_labels=labels)  # fmt: skip
    return ResNetForImageClassification(config), ImageProcessor(size=32, channels=3)


def resnet20(data_dir: Path | None, labels: int) -> tuple[Any, ImageProcessor]:
    """The CIFAR ResNet-20 untrained."""
    from harness.models.cifar_resnet import CifarResNetConfig, CifarResNetForImageClassification

    model = CifarResNetForImageClassification(CifarResNetConfig(blocks=3, num_labels=labels))
    return model, ImageProcessor(size=32, channels=3)


def cifar_resnet20(data_dir: Path | None, labels: int) -> tuple[Any, ImageProcessor]:
    """ResNet-20 trained on CIFAR-10, from the data pack."""
    return _trained(3, data_dir, labels)


def cifar_resnet56(data_dir: Path | None, labels: int) -> tuple[Any, ImageProcessor]:
    """ResNet-56 trained on CIFAR-10, from the data pack."""
    return _trained(9, data_dir, labels)


def encoder_tiny(data_dir: Path | None, labels: int) -> tuple[Any, Any]:
    """A BERT of 4 layers and 128 dimensions over the shipped model's tokenizer."""
    from importlib.resources import files

    from transformers import BertConfig, BertForSequenceClassification

    from harness.models.load import load_tokenizer

    tokenizer = load_tokenizer(Path(str(files("harness.models"))) / "tiny")
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=128, num_hidden_layers=4, num_attention_heads=4,
                        intermediate_size=512, max_position_embeddings=512, pad_token_id=tokenizer.pad_token_id,
                        num_labels=labels)  # fmt: skip
    return BertForSequenceClassification(config), tokenizer


def classifier_from(released: Any, labels: int) -> Any:
    """A causal language model's body with a zero head for sequence classification (its last token's state).

    Raises:
        UsageError: transformers has no such classifier for the architecture.
    """
    from transformers import AutoModelForSequenceClassification

    from harness.models.heads import replace_head

    config = released.model.config
    config.num_labels, config.pad_token_id = labels, released.tokenizer.pad_token_id
    try:
        model = AutoModelForSequenceClassification.from_config(config)
    except ValueError:
        name = type(released.model).__name__
        raise UsageError(f"model {released.name!r}: transformers has no sequence classifier made of {name}") from None
    model.base_model.load_state_dict(released.model.base_model.state_dict())
    replace_head(model, labels, "")
    delattr(model.config, "lockbench_head")
    model.config.architectures = [type(model).__name__]
    return model


def _trained(blocks: int, data_dir: Path | None, labels: int) -> tuple[Any, ImageProcessor]:
    """Raises UsageError: the pack is not here, the file is not the published one, or other labels are asked for."""
    from safetensors.torch import load_file

    from harness.files import sha256
    from harness.models.cifar_resnet import CifarResNetConfig, CifarResNetForImageClassification

    name, expected = CIFAR_FILES[blocks]
    path = None if data_dir is None else data_dir / "models" / "cifar10_resnet" / f"{name}.safetensors"
    if path is None or not path.is_file():
        raise UsageError(f"model 'cifar_{name}' is in the data pack (HARNESS_DATA or --data-dir), which "
                         + ("is not given" if path is None else f"has no {path.name}"))  # fmt: skip
    if sha256(path) != expected:
        raise UsageError(f"{path} is not the published file: its sha256 is not {expected[:16]}...")
    if labels != 10:
        raise UsageError(f"model 'cifar_{name}' has the 10 classes of CIFAR-10, own has {labels}")
    model = CifarResNetForImageClassification(CifarResNetConfig(blocks=blocks, num_labels=10))
    model.load_state_dict(load_file(path))
    return model, ImageProcessor(size=32, channels=3, **IMAGENET)
