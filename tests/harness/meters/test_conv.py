"""FLOPs of convolutions and of whole image classifiers, by hand."""

from __future__ import annotations

import pytest
import torch
from classifier_cases import small_resnet
from torch import nn

from harness.meters.micro import measure_micro

B, SIDE = 3, 8


def counted(module: nn.Module, data: torch.Tensor) -> tuple[int, int]:
    cost = measure_micro(lambda: module(data).sum(), torch.Tensor.backward, list(module.parameters()))[1]
    return cost.forward_flops, cost.backward_flops


@pytest.mark.parametrize(("kernel", "stride", "padding", "groups"), [
    (3, 1, 1, 1), (3, 2, 1, 1), (1, 1, 0, 1), (5, 2, 0, 1), (3, 1, 1, 2)])  # fmt: skip
def test_a_convolution_is_a_product_for_every_output_pixel(kernel: int, stride: int, padding: int, groups: int) -> None:
    layer = nn.Conv2d(4, 6, kernel, stride=stride, padding=padding, groups=groups)
    side = (SIDE + 2 * padding - kernel) // stride + 1
    unit = 2 * B * 6 * side * side * (4 // groups) * kernel * kernel
    data = torch.ones(B, 4, SIDE, SIDE, requires_grad=True)
    assert counted(layer, data)[0] == unit
    if groups == 1:  # torch's formula for the backward of a grouped convolution is its own
        assert counted(layer, data) == (unit, 2 * unit)
        assert counted(layer, data.detach()) == (unit, unit)


def test_a_resnet_is_the_sum_of_its_layers() -> None:
    """conv1 on 8 x 8; stage 1: two of 16 x 16 channels; stage 2 on 4 x 4: 16 to 32, 32 to 32; the head."""
    model = small_resnet(labels=5).model
    rest = 2 * B * (2 * 64 * 16 * 16 * 9 + 16 * 32 * 16 * 9 + 16 * 32 * 32 * 9 + 32 * 5)
    first = 2 * B * 64 * 16 * 1 * 9
    images = torch.zeros(B, 1, SIDE, SIDE)

    def forward() -> torch.Tensor:
        loss: torch.Tensor = model(pixel_values=images).logits.sum()
        return loss

    cost = measure_micro(forward, torch.Tensor.backward, list(model.parameters()))[1]
    assert cost.forward_flops == first + rest
    assert cost.backward_flops == first + 2 * rest  # nobody asks for the images' gradient
