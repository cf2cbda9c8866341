"""`qlora`: LoRA on a model whose linear layers are held in 4 bits (bitsandbytes NF4, double quantization).

The layers are quantized in memory, those of a lock included, whatever their shape: NF4 works on blocks of 64 values of
the flattened matrix, the last one shorter. Afterwards each layer is dequantized and its adapter added, without
quantizing again; the attacked model's score therefore includes the quantization.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from attacks.lora import LoRA, LoRASettings
from harness.plugins import AttackContext, Attacked, Released

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


class QLoRASettings(LoRASettings):
    """LoRA's settings, and how the frozen layers are held."""

    learning_rate: float = Field(3e-3, gt=0)
    """Peak learning rate."""
    double_quant: bool = True
    """Quantize the blocks' scales too."""


class QLoRA(LoRA):
    """LoRA on a model quantized to 4 bits (bitsandbytes NF4), dequantized and merged at the end."""

    Settings = QLoRASettings
    settings: QLoRASettings
    requires = ("bitsandbytes",)

    def attack(self, released: Released, context: AttackContext) -> Attacked:
        """See `harness.plugins.Attack`."""
        from attacks.common import eagerly

        with eagerly():
            return super().attack(released, context)

    def convert(self, model: PreTrainedModel, targets: Sequence[str]) -> dict[str, Any]:
        """Replace the targets by 4-bit layers."""
        for name in targets:
            _replace(model, name, quantized(model.get_submodule(name), self.settings.double_quant))
        model.is_loaded_in_4bit = True  # PEFT's sign to use its adapter for 4-bit layers
        held = [model.get_submodule(name).weight for name in targets]
        return {"quantized_layers": len(held), "quantized_bytes": sum(weight.nbytes for weight in held),
                "score_includes_quantization": True}  # fmt: skip

    def merge(self, adapted: Any) -> PreTrainedModel:
        """Dequantize each layer in fp32, add its adapter, and put a plain layer back."""
        from peft.tuners.lora.bnb import Linear4bit

        model: PreTrainedModel = adapted.get_base_model()
        for name, layer in list(model.named_modules()):
            if isinstance(layer, Linear4bit):
                delta = layer.get_delta_weight(layer.active_adapters[0])
                _replace(model, name, plain(layer.get_base_layer(), delta))
        adapted.unload()  # takes PEFT's marks off the model; no adapter is left in it
        model.is_loaded_in_4bit = False
        return model


def quantized(layer: nn.Module, double_quant: bool) -> nn.Module:
    """A frozen NF4 layer that computes in fp32 with the quantized weights of `layer` (nn.Linear or GPT-2's Conv1D)."""
    import bitsandbytes as bnb
    from torch import nn

    weight: Any = layer.weight.data if isinstance(layer, nn.Linear) else layer.weight.data.T.contiguous()  # type: ignore[operator]
    outputs, inputs = weight.shape
    found = bnb.nn.Linear4bit(inputs, outputs, bias=layer.bias is not None, compute_dtype=weight.dtype,
                              compress_statistics=double_quant, quant_type="nf4", device="meta")  # fmt: skip
    found.weight = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="nf4", compress_statistics=double_quant,
                                     module=found)  # fmt: skip
    if layer.bias is not None:
        found.bias = layer.bias
    # Repacking for CPUs with AVX512-BF16 would make a probe between steps compute in bf16, on some machines only.
    found.support_avx512bf16_for_cpu = False
    was_conv = not isinstance(layer, nn.Linear)
    found.was_conv1d = was_conv
    moved: nn.Module = found.to(weight.device)  # this is what quantizes
    return moved


def plain(layer: Any, delta: Any) -> nn.Module:
    """The fp32 layer of the kind that was quantized: dequantized weight plus `delta` (out, in)."""
    import torch
    from bitsandbytes.functional import dequantize_4bit
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(torch.float32) + delta
    if layer.was_conv1d:
        made: nn.Module = Conv1D(layer.out_features, layer.in_features)
        made.weight = nn.Parameter(weight.T.contiguous())
        made.bias = layer.bias
        return made
    with torch.device("meta"):
        linear = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    linear.weight = nn.Parameter(weight)
    linear.bias = layer.bias
    return linear


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)
