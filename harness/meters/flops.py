"""Counting floating-point operations: torch's formulas plus the kernels its table lacks."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count, shape_wrapper

Shape = tuple[int, ...]
aten = torch.ops.aten


class FlopCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts matrix products (a multiply-add is 2) and attention kernels, those of the CPU included.

    The formulas are those of torch's FlopCounterMode, which is not used itself: it runs some kernels (silu's backward)
    decomposed, which changes the last bits of gradients, and its module tracker keeps gradients alive longer.
    Causal attention is counted in full, as torch's formulas do; element-wise work is not counted.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0
        """FLOPs so far."""
        self._formulas = {**flop_registry, **_formulas()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = getattr(func, "_overloadpacket", func)
        formula = self._formulas.get(packet)
        if formula is None and _only_composite(func, args):
            with self:  # inference mode hands over `linear` and the like whole: look inside
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if formula is not None:
            self.total += formula(*args, **kwargs, out_val=result)
        return result


def _only_composite(func: Any, args: Any) -> bool:
    """Whether an operation has no kernel of its own on the device, only a recipe of other operations."""
    if not isinstance(func, torch._ops.OpOverload):
        return False
    device = next((a.device.type for a in args if isinstance(a, torch.Tensor)), "cpu")
    if device == "meta":  # shapes are being inferred, nothing is computed
        return False
    return not torch._C._dispatch_has_kernel_for_dispatch_key(str(func._name), device.upper())


def _sdpa(query: Shape, key: Shape, value: Shape, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


def _sdpa_backward(grad: Shape, q: Shape, k: Shape, v: Shape, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return int(sdpa_backward_flop_count(grad, q, k, v))  # type: ignore[no-untyped-call]


def _addbmm(_: Shape, a: Shape, b: Shape, *__: Any, out_shape: Any = None, **___: Any) -> int:
    return 2 * a[0] * a[1] * a[2] * b[2]


def _mv(matrix: Shape, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return 2 * prod(matrix)


def _addmv(_: Shape, matrix: Shape, *__: Any, out_shape: Any = None, **___: Any) -> int:
    return 2 * prod(matrix)


def _addr(_: Shape, a: Shape, b: Shape, *__: Any, out_shape: Any = None, **___: Any) -> int:
    return 2 * a[0] * b[0]


def _fused_4bit(a: Shape, _: Shape, shape_b: Any, *__: Any, out_shape: Any = None, **___: Any) -> int:
    """bitsandbytes' fused product with a 4-bit matrix whose unpacked shape (out, in) is an argument."""
    return 2 * prod(a[:-1]) * prod(int(size) for size in shape_b)


def _formulas() -> dict[Any, Any]:
    found = {
        aten._scaled_dot_product_flash_attention_for_cpu: _sdpa,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _sdpa_backward,
        aten._scaled_dot_product_fused_attention_overrideable: _sdpa,
        aten.addbmm: _addbmm,
        aten.mv: _mv,
        aten.addmv: _addmv,
        aten.dot: _mv,
        aten.vdot: _mv,
        aten.addr: _addr,
    }
    for name in ("gemv_4bit", "gemm_4bit"):  # registered only once bitsandbytes is imported
        if hasattr(torch.ops.bitsandbytes, name):
            found[getattr(torch.ops.bitsandbytes, name)] = _fused_4bit
    return {op: shape_wrapper(formula) for op, formula in found.items()}  # type: ignore[no-untyped-call]
