"""ZeRO-3 takes a model apart where it lies: no second copy of it in host memory, and never a whole one on a device."""

from __future__ import annotations

import copy
from typing import Any

import torch


def apart(model: torch.nn.Module) -> torch.nn.Module:
    """A model of other parameters over the same storage: ZeRO-3 gives each rank its part of them and drops the rest, so
    that a copy would double the host memory for nothing."""
    same = {id(p): torch.nn.Parameter(p.detach(), requires_grad=p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, same)


def split(twin: torch.nn.Module, config: dict[str, Any], *, bf16: bool) -> None:
    """Leave each rank its part of every parameter: no device ever holds more than one whole parameter on the way.

    Without this DeepSpeed moves the whole model to the device first.
    """
    from deepspeed.accelerator import get_accelerator
    from deepspeed.runtime.zero.partition_parameters import Init

    for buffer in twin.buffers():  # DeepSpeed leaves to `Init` where such a model lies, and `Init` looks at parameters
        buffer.data = buffer.data.to(get_accelerator().current_device_name())
    dtype = torch.bfloat16 if bf16 else torch.float32
    for p in twin.parameters():
        p.data = p.data.to(dtype)
    Init(module=twin, config_dict_or_path=config, dtype=dtype)
