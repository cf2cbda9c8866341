"""Pairs of linear layers in the place of single ones, and causal language models made with them.

This file is copied into every exported folder as remote code of plain `transformers`, so it imports torch,
transformers and the file beside it only. A reconstruction of "SpecDef" of arXiv 2602.18868
(docs/locks/specdef_reparam.md).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from harness.models.derived import Part, put


def matrix(layer: Any) -> torch.Tensor:
    """Weight (out, in) of a linear layer; GPT-2's Conv1D stores the transpose.

    Raises:
        TypeError: the layer is not linear.
    """
    if not isinstance(layer, nn.Linear | Conv1D):
        raise TypeError(f"{type(layer).__name__} is not a linear layer")
    return layer.weight.T if isinstance(layer, Conv1D) else layer.weight


def pair(layer: Any) -> Any:
    """Two fresh linear layers for one: out x in without a bias, then out x out with the layer's bias."""
    weight = matrix(layer)
    outputs, inputs = weight.shape
    like: Any = {"device": weight.device, "dtype": weight.dtype}
    return nn.Sequential(OrderedDict(
        inflated=nn.Linear(inputs, outputs, bias=False, **like),
        compensation=nn.Linear(outputs, outputs, bias=layer.bias is not None, **like),
    ))  # fmt: skip


def install(model: nn.Module, value: dict[str, Any]) -> None:
    """Put freshly initialised pairs in the place of the linear layers at the paths `value["layers"]`."""
    for name in value["layers"]:
        put(model, name, pair(model.get_submodule(name)).train(model.training))


PART = Part(prefix="SpecDef", key="specdef_reparam", install=install)
"""How the classes of locked models are made."""
