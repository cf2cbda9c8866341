"""Where a model's weights lie: on the device that computes, or in host memory where the device has no room for them.

A model too large for its device computes there all the same: the weights of one module at a time are carried to it
before the module's forward pass and dropped after, as accelerate's `cpu_offload` does. That one replaces the
parameters by others; here they stay the same objects, which an engine in mid-training holds on to.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from harness.meters.device_memory import cuda_index
from harness.meters.memory import module_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROOM = 0.9
"""Share of the device's free memory that weights may take: a forward pass needs the rest."""
CARRIER = "_lockbench_carrier"
"""Attribute of a model whose weights are being carried."""


def free_bytes(device: str) -> int:
    """Bytes that this process may still allocate on a CUDA device, the allocator's unused blocks included."""
    index = cuda_index(device)
    free, total = torch.cuda.mem_get_info(index)
    taken = torch.cuda.memory_allocated(index)
    allowed = int(torch.cuda.get_per_process_memory_fraction(index) * total)
    return min(free + torch.cuda.memory_reserved(index) - taken, allowed - taken)


def fits(model: torch.nn.Module, device: str) -> bool:
    """Whether the weights have room on `device`, or are there already; host memory is never asked."""
    if not device.startswith("cuda") or next(model.parameters()).is_cuda:
        return True
    return module_bytes(model) <= ROOM * free_bytes(device)


def place(model: PreTrainedModel, device: str) -> PreTrainedModel:
    """The model on `device` where it fits, else as it is."""
    return model.to(device=device) if fits(model, device) else model


@contextmanager
def on_device(model: PreTrainedModel, device: str) -> Iterator[None]:
    """Inside, forward passes of the model compute on `device`; afterwards its weights are where they were.

    Inputs and outputs lie where the weights do (`model.device`), whichever way this is done.
    """
    here = next(model.parameters()).device
    if here.type == torch.device(device).type:
        yield
    elif fits(model, device):
        model.to(device=device)
        try:
            yield
        finally:
            model.to(device=here)
    else:
        with Carrier(device).carrying(model):
            yield


class Carrier:
    """Carries weights to a device, module by module, while a forward pass needs them."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.most_bytes = 0
        """The most bytes of weights that were on the device at once."""
        self._held: dict[torch.nn.Module, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        self._handles: list[Any] = []
        self._bytes = 0

    @contextmanager
    def carrying(self, model: PreTrainedModel) -> Iterator[None]:
        """Inside, forward passes of the model run on the device; inputs and outputs stay where its weights lie."""
        from accelerate.utils import send_to_device

        home = next(model.parameters()).device

        def enter(_: Any, args: Any, kwargs: Any) -> Any:
            return send_to_device(args, self.device), send_to_device(kwargs, self.device)

        def leave(_: Any, args: Any, output: Any) -> Any:
            return send_to_device(output, home)

        for module in model.modules():
            self.carry(module)
        self._handles += [model.register_forward_pre_hook(enter, with_kwargs=True), model.register_forward_hook(leave)]
        setattr(model, CARRIER, self)
        try:
            yield
        finally:
            delattr(model, CARRIER)
            for handle in self._handles:
                handle.remove()
            self._handles.clear()

    def carry(self, module: torch.nn.Module) -> None:
        """Carry the tensors of this module's own, from its next forward pass on."""
        if _own(module):
            self._handles += [module.register_forward_pre_hook(self._fetch),
                              module.register_forward_hook(self._drop, always_call=True)]  # fmt: skip

    def _fetch(self, module: torch.nn.Module, args: Any) -> None:
        with torch.inference_mode(False):  # a tensor born in inference mode could not become a parameter's data
            self._held[module] = [(tensor, tensor.data) for tensor in _own(module)]
            for tensor, _ in self._held[module]:
                tensor.data = tensor.data.to(self.device, copy=True)
                self._bytes += tensor.nbytes
        self.most_bytes = max(self.most_bytes, self._bytes)

    def _drop(self, module: torch.nn.Module, args: Any, output: Any) -> None:
        with torch.inference_mode(False):
            for tensor, data in self._held.pop(module, ()):
                self._bytes -= tensor.nbytes
                tensor.data = data


def _own(module: torch.nn.Module) -> list[torch.Tensor]:
    """The tensors of the module itself, not of those inside it."""
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)]


def carrier_of(model: torch.nn.Module) -> Carrier | None:
    """Who carries the model's weights at this moment; None where they lie where they are used."""
    found: Carrier | None = getattr(model, CARRIER, None)
    return found
