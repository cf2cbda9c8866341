"""The net itself: its equation, its gradients, checkpointing, and what it keeps for backward."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch.nn import functional

from defenses.dlr.modeling_dlr import DLRBlock, DLRNet


def random_net(**changes: Any) -> DLRNet:
    torch.manual_seed(0)
    return DLRNet(16, [4, 3, 3], **changes)


@pytest.mark.parametrize(("norm", "head", "gated", "bias"),
                         itertools.product(["rms", "none"], ["residual", "learned"], [False, True], [False, True]))
def test_equation(norm: str, head: str, gated: bool, bias: bool) -> None:
    net = random_net(norm=norm, head=head, gated=gated, bias=bias, activation="gelu")
    net.gain.fill_(0.5)
    x = torch.randn(2, 5, 16)
    h = x
    for block in net.blocks:
        n = functional.rms_norm(h, (16,), eps=0) if norm == "rms" else h
        reduce, gate = (None if m is None else m.weight for m in (block.reduce, block.gate))
        shift = [0 if m is None or m.bias is None else m.bias for m in (block.reduce, block.gate)]
        if norm == "rms":  # the bias is inside the normalised projection
            scale = h.square().mean(-1, keepdim=True).rsqrt()
            shift = [scale * value for value in shift]
        z = n @ reduce.T + shift[0]
        z = functional.gelu(z) if gate is None else functional.gelu(n @ gate.T + shift[1]) * z
        h = h + z @ block.expand.weight.T
    out = 0.5 * (h - x if net.head is None else h @ net.head.weight.T) + (0 if net.shift is None else net.shift)
    assert torch.allclose(net(x), out, atol=1e-5)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("norm", ["rms", "none"])
def test_gradient_reaches_every_block(norm: str, gated: bool) -> None:
    net = random_net(norm=norm, gated=gated)
    net(torch.randn(8, 16)).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name


@pytest.mark.parametrize("gated", [False, True])
def test_it_can_be_differentiated_twice(gated: bool) -> None:
    """Second-order optimizers do; the norm has a backward of its own."""
    net = random_net(gated=gated, bias=True).double()
    params = tuple(net.parameters())
    x = torch.randn(3, 16, dtype=torch.float64, requires_grad=True)

    def run(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        names = [name for name, _ in net.named_parameters()]
        return torch.func.functional_call(net, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *params), fast_mode=True)
    assert torch.autograd.gradgradcheck(run, (x, *params), fast_mode=True)


@pytest.mark.parametrize("segments", [1, 2, 3])
def test_checkpointing_gives_the_same_gradients_and_keeps_less(segments: int) -> None:
    x = torch.randn(8, 16, requires_grad=True)
    plain, kept_plain = _gradients(random_net(), x)
    net = random_net()
    net.checkpoint, net.segments = True, segments
    ours, kept = _gradients(net, x)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(plain, ours, strict=True))
    assert kept < kept_plain


def _gradients(net: DLRNet, x: torch.Tensor) -> tuple[list[torch.Tensor], int]:
    kept: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in net.parameters()}

    def pack(t: torch.Tensor) -> torch.Tensor:
        if t.untyped_storage().data_ptr() not in own:
            kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss = net(x).square().sum()
    return list(torch.autograd.grad(loss, [x, *net.parameters()])), sum(kept.values())


@pytest.mark.parametrize("norm", ["rms", "none"])
def test_kept_bytes_grow_linearly_with_depth(norm: str) -> None:
    x = torch.randn(32, 16, requires_grad=True)
    kept = [_gradients(DLRNet(16, [2] * depth, norm=norm), x)[1] for depth in (8, 16, 24)]
    assert kept[2] - kept[1] == kept[1] - kept[0] > 0
    assert kept[1] - kept[0] >= 8 * 32 * 16 * 4  # every block keeps at least its input


def test_impossible_nets_are_refused() -> None:
    for changes in ({"ranks": []}, {"ranks": [0]}, {"norm": "layer"}, {"head": "none"}):
        with pytest.raises(ValueError, match="impossible DLR-Net"):
            DLRNet(16, **({"ranks": [1]} | changes))


@pytest.mark.parametrize("norm", ["rms", "none"])
def test_a_fused_block_is_the_plain_one_and_keeps_no_more(norm: str) -> None:
    block = DLRBlock(12, 3, activation="silu", norm=norm, gated=False, bias=False).double()
    h = torch.randn(2, 5, 12, dtype=torch.float64, requires_grad=True)
    ours = block(h)
    assert "FusedBlock" in type(ours.grad_fn).__name__
    handle = block.expand.register_forward_hook(lambda *_: None)  # whoever looks inside gets the plain block
    plain = block(h)
    assert "FusedBlock" not in type(plain.grad_fn).__name__
    handle.remove()
    torch.testing.assert_close(ours, plain)

    def fused(h: torch.Tensor, reduce: torch.Tensor, expand: torch.Tensor) -> torch.Tensor:
        found = torch.func.functional_call(block, {"reduce.weight": reduce, "expand.weight": expand}, (h,))
        assert isinstance(found, torch.Tensor)
        return found

    weights = tuple(x.detach().requires_grad_(True) for x in (block.reduce.weight, block.expand.weight))
    assert torch.autograd.gradcheck(fused, (h, *weights))
    assert torch.autograd.gradgradcheck(fused, (h, *weights))


@pytest.mark.parametrize("trained", [("reduce",), ("expand",), ("reduce", "expand"), ()])
def test_a_fused_block_trains_what_is_to_be_trained(trained: tuple[str, ...]) -> None:
    block = DLRBlock(12, 3, activation="silu", norm="rms", gated=False, bias=False)
    for name, weight in block.named_parameters():
        weight.requires_grad_(name.partition(".")[0] in trained)
    found = {}
    for way in ("fused", "plain"):
        h = torch.arange(24.0).reshape(2, 12).requires_grad_(not trained or way == "plain")
        if way == "plain":
            block.reduce.register_forward_hook(lambda *_: None)
        block(h).square().sum().backward()
        found[way] = {name: weight.grad for name, weight in block.named_parameters()}
        block.zero_grad()
    for name, gradient in found["plain"].items():
        if name.partition(".")[0] not in trained:
            assert found["fused"][name] is None
        else:
            torch.testing.assert_close(found["fused"][name], gradient)
