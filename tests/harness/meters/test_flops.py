"""FLOPs are exact integers: hand counts on small modules, attention on the CPU included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from harness.budget import Budget
from harness.errors import OverBudget
from harness.meters.meter import Meter
from harness.meters.micro import MicroCost, measure_micro

B, D, H = 4, 8, 16
UNIT = 2 * B * D * H


def cost(module: nn.Module, forward: Callable[[], torch.Tensor]) -> MicroCost:
    return measure_micro(forward, torch.Tensor.backward, list(module.parameters()))[1]


def x() -> torch.Tensor:
    return torch.ones(B, D, requires_grad=True)


def test_linear() -> None:
    linear, data = nn.Linear(D, H), x()
    found = cost(linear, lambda: linear(data).sum())
    assert (found.forward_flops, found.backward_flops) == (UNIT, 2 * UNIT)


def test_linear_on_data_without_gradient_computes_only_the_weight_gradient() -> None:
    linear, data = nn.Linear(D, H), torch.ones(B, D)
    found = cost(linear, lambda: linear(data).sum())
    assert (found.forward_flops, found.backward_flops) == (UNIT, UNIT)


def test_a_frozen_linear_computes_only_the_input_gradient() -> None:
    linear, data = nn.Linear(D, H).requires_grad_(False), x()
    found = cost(linear, lambda: linear(data).sum())
    assert (found.forward_flops, found.backward_flops) == (UNIT, UNIT)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_mlp_is_two_to_one_and_three_to_one_with_checkpointing(layers: int) -> None:
    mlp = nn.Sequential(*(nn.Sequential(nn.Linear(D, H), nn.ReLU(), nn.Linear(H, D)) for _ in range(layers)))
    data = x()

    def recomputed() -> torch.Tensor:
        value = data
        for layer in mlp:
            value = checkpoint(layer, value, use_reentrant=False)
        return value.sum()

    plain, saving = cost(mlp, lambda: mlp(data).sum()), cost(mlp, recomputed)
    units = 2 * layers
    assert (plain.forward_flops, plain.backward_flops) == (units * UNIT, 2 * units * UNIT)
    # Non-reentrant checkpointing stops recomputing once all saved tensors are back: the last product of a layer,
    # whose result nothing needs, is not repeated.
    assert (saving.forward_flops, saving.backward_flops) == (units * UNIT, (2 * units + units - layers) * UNIT)


def test_full_recomputation_is_three_to_one() -> None:
    mlp = nn.Sequential(nn.Linear(D, H), nn.ReLU(), nn.Linear(H, D), nn.ReLU())  # the end is needed, so all is repeated
    data = x()
    found = cost(mlp, lambda: checkpoint(mlp, data, use_reentrant=False).sum())
    assert (found.forward_flops, found.backward_flops) == (2 * UNIT, 3 * 2 * UNIT)


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("causal", [True, False])
def test_attention_on_the_cpu(causal: bool, kv_heads: int) -> None:
    """Two products forward; five backward, because the kernel computes the scores again."""
    batch, heads, length, width = 2, 4, 6, 8
    q = torch.randn(batch, heads, length, width, requires_grad=True)
    k, v = (torch.randn(batch, kv_heads, length, width, requires_grad=True) for _ in "kv")
    found = cost(nn.Identity(), lambda: F.scaled_dot_product_attention(
        q, k, v, is_causal=causal, enable_gqa=kv_heads != heads).sum())  # fmt: skip
    product = 2 * batch * heads * length * length * width
    assert (found.forward_flops, found.backward_flops) == (2 * product, 5 * product)


@pytest.mark.parametrize(("operation", "shapes", "flops"), [
    (torch.mm, [(3, 4), (4, 5)], 2 * 3 * 4 * 5),
    (torch.bmm, [(2, 3, 4), (2, 4, 5)], 2 * 2 * 3 * 4 * 5),
    (torch.addmm, [(3, 5), (3, 4), (4, 5)], 2 * 3 * 4 * 5),
    (torch.baddbmm, [(2, 3, 5), (2, 3, 4), (2, 4, 5)], 2 * 2 * 3 * 4 * 5),
    (torch.addbmm, [(3, 5), (2, 3, 4), (2, 4, 5)], 2 * 2 * 3 * 4 * 5),
    (torch.mv, [(3, 4), (4,)], 2 * 3 * 4),
    (torch.dot, [(7,), (7,)], 2 * 7),
    (torch.nn.functional.conv1d, [(2, 3, 10), (5, 3, 4)], 2 * 2 * 7 * 5 * 3 * 4),
    (torch.add, [(3, 4), (3, 4)], 0),
])  # fmt: skip
def test_single_operations(operation: Callable[..., torch.Tensor], shapes: list[tuple[int, ...]], flops: int) -> None:
    tensors = [torch.randn(shape, requires_grad=True) for shape in shapes]
    found = cost(nn.Identity(), lambda: operation(*tensors).sum())
    assert found.forward_flops == flops


def test_embedding_and_head() -> None:
    embedding, head, ids = nn.Embedding(10, D), nn.Linear(D, 10, bias=False), torch.arange(B)
    both = nn.ModuleList([embedding, head])
    found = cost(both, lambda: F.cross_entropy(head(embedding(ids)), ids))
    assert (found.forward_flops, found.backward_flops) == (2 * B * D * 10, 4 * B * D * 10)


def test_metering_changes_no_bit() -> None:
    mlp = nn.Sequential(nn.Linear(D, H), nn.GELU(), nn.Linear(H, D))
    data = torch.randn(B, D)
    plain = mlp(data).pow(2).mean()
    plain.backward()
    gradients = [p.grad.clone() for p in mlp.parameters() if p.grad is not None]
    mlp.zero_grad()
    loss, _ = measure_micro(lambda: mlp(data).pow(2).mean(), torch.Tensor.backward, list(mlp.parameters()))
    assert torch.equal(loss, plain)
    assert all(torch.equal(a, p.grad) for a, p in zip(gradients, mlp.parameters(), strict=True) if p.grad is not None)


def test_metering_a_llama_changes_no_bit(tiny_llama: Any) -> None:
    """Some kernels (silu's backward) have a decomposition with other rounding; it must not be run."""
    model, ids = tiny_llama.model.train(), torch.arange(64).view(2, 32)

    def gradients(run: Callable[[], object]) -> list[torch.Tensor]:
        model.zero_grad()
        run()
        return [p.grad.clone() for p in model.parameters()]

    def forward() -> torch.Tensor:
        loss: torch.Tensor = model(input_ids=ids, labels=ids).loss
        return loss

    plain = gradients(lambda: forward().backward())
    metered = gradients(lambda: measure_micro(forward, torch.Tensor.backward, list(model.parameters())))
    assert all(torch.equal(a, b) for a, b in zip(plain, metered, strict=True))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_meter_measures_forward_passes_in_any_mode(mode: Any) -> None:
    linear, meter = nn.Linear(D, H), Meter()
    with meter.stage("undo"), mode():
        for _ in range(3):
            with meter.measure(tokens=B, key="linear"):
                linear(torch.ones(B, D))
        with meter.measure():
            linear(torch.ones(2 * B, D))
    assert meter.bills["undo"].forward_flops == 5 * UNIT
    assert meter.bills["undo"].tokens == 3 * B


def test_measure_is_over_budget_when_it_is() -> None:
    meter = Meter(Budget(flops=1.5 * UNIT))
    linear = nn.Linear(D, H)
    with meter.measure():
        linear(torch.ones(B, D))
    with pytest.raises(OverBudget, match=r"budget\.flops"), meter.measure():
        linear(torch.ones(B, D))
