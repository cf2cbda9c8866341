"""Counting floating-point operations: torch's FlopCounterMode plus the kernels its table lacks."""

from __future__ import annotations

from math import prod
from typing import Any, cast

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

Shape = tuple[int, ...]
aten = torch.ops.aten


def flop_counter() -> FlopCounterMode:
    """A counter of all matrix products (a multiply-add is 2), attention kernels of the CPU included.

    Causal attention is counted in full, as the kernels' own formulas in torch do; element-wise work is not counted.
    """
    counter: Any = FlopCounterMode(display=False, custom_mapping=_formulas())
    # The per-module tracker hangs hooks on the graph that keep gradients alive longer and would disturb the memory
    # meter; only the total is read here.
    counter.mod_tracker = _NoModules()
    return cast(FlopCounterMode, counter)


class _NoModules:
    """Stands in for torch's module tracker: everything belongs to the whole."""

    parents = frozenset({"Global"})

    def __enter__(self) -> _NoModules:
        return self

    def __exit__(self, *_: object) -> None:
        return None


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
    return found
