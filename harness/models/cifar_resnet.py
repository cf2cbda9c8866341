"""The ResNet of CIFAR-10 (He et al. 2016, section 4.2): stages of 16, 32 and 64 channels, option-A shortcuts.

Parameter names are those of the widely used checkpoints of akamaster/pytorch_resnet_cifar10, which the data pack holds.
Depth is 6n + 2: n = 3 is ResNet-20, n = 9 ResNet-56. Importing this registers nothing; `register` does.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import ImageClassifierOutputWithNoAttention


class CifarResNetConfig(PreTrainedConfig):  # type: ignore[misc]
    """Blocks a stage, channels of the stages and of the image, and the classes."""

    model_type = "cifar_resnet"
    blocks: int = 3
    widths: Sequence[int] = (16, 32, 64)
    num_channels: int = 3


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; where the size changes the shortcut is subsampled and padded with zeros (option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.extra = stride, (outputs - inputs) // 2

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(batch, inputs, height, width) to (batch, outputs, height / stride, width / stride)."""
        inner = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(hidden)))))
        if self.stride > 1 or self.extra:
            hidden = functional.pad(hidden[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.extra, self.extra))
        return functional.relu(inner + hidden)


class CifarResNetForImageClassification(PreTrainedModel):  # type: ignore[misc]
    """The network with its linear head; `forward(pixel_values, labels)` as transformers' image classifiers."""

    config_class = CifarResNetConfig
    main_input_name = "pixel_values"

    def __init__(self, config: CifarResNetConfig) -> None:
        super().__init__(config)
        first, *rest = config.widths
        self.conv1 = nn.Conv2d(config.num_channels, first, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.layer1 = _stage(first, first, config.blocks, 1)
        for number, (inputs, outputs) in enumerate(itertools.pairwise(config.widths), 2):
            self.add_module(f"layer{number}", _stage(inputs, outputs, config.blocks, 2))
        self.linear = nn.Linear([first, *rest][-1], config.num_labels)
        self.post_init()

    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None, **_: Any
    ) -> ImageClassifierOutputWithNoAttention:
        """Logits (batch, classes) of normalised images (batch, channels, size, size), and the loss if labelled."""
        hidden = functional.relu(self.bn1(self.conv1(pixel_values)))
        for number in range(1, len(self.config.widths) + 1):
            hidden = self.get_submodule(f"layer{number}")(hidden)
        logits = self.linear(hidden.mean((2, 3)))
        loss = None if labels is None else functional.cross_entropy(logits, labels)
        return ImageClassifierOutputWithNoAttention(loss=loss, logits=logits)

    def _init_weights(self, module: nn.Module) -> None:
        """Kaiming's initialisation of convolutions and the head, as the checkpoints' authors used."""
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d | nn.Linear):
            init.kaiming_normal_(module.weight)


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))


def register() -> None:
    """Let transformers' Auto classes know the architecture (again is nothing)."""
    AutoConfig.register(CifarResNetConfig.model_type, CifarResNetConfig, exist_ok=True)
    AutoModelForImageClassification.register(CifarResNetConfig, CifarResNetForImageClassification, exist_ok=True)
