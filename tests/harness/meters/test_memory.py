"""Bytes of activations are exact integers, by storage: hand counts, and torch's own tracker as second witness."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from harness.meters.memory import LiveStorages, module_bytes, tensor_bytes
from harness.meters.micro import MicroCost, measure_micro

B, D, H = 4, 8, 16
BD, BH = 4 * B * D, 4 * B * H
"""Bytes of an fp32 tensor of (batch, width) and (batch, hidden)."""
SCALAR = 4
"""The loss, and the gradient that backward starts from."""


def cost(module: nn.Module, forward: Callable[[], torch.Tensor]) -> MicroCost:
    return measure_micro(forward, torch.Tensor.backward, list(module.parameters()))[1]


def test_linear_keeps_nothing_but_its_input() -> None:
    """The input is the batch and the weight is a parameter: neither is counted."""
    linear, data = nn.Linear(D, H), torch.randn(B, D)
    found = cost(linear, lambda: linear(data).sum())
    assert found.kept_for_backward_bytes == 0
    assert found.peak_backward_bytes == 2 * SCALAR  # gradients of weight and bias are gradients
    assert found.peak_bytes == BH + SCALAR  # forward: the output, until it is summed


def test_linear_relu_linear() -> None:
    mlp, data = nn.Sequential(nn.Linear(D, H), nn.ReLU(), nn.Linear(H, D)), torch.randn(B, D)
    found = cost(mlp, lambda: mlp(data).sum())
    assert found.kept_for_backward_bytes == BH  # relu's result, which is also the second layer's input: once
    # relu's result, the gradient with respect to it, and the one with respect to the first layer's output
    assert found.peak_backward_bytes == 3 * BH + 2 * SCALAR


def test_mean_square_keeps_the_output() -> None:
    linear, data = nn.Linear(D, H), torch.randn(B, D)
    found = cost(linear, lambda: linear(data).pow(2).mean())
    assert found.kept_for_backward_bytes == BH


class Residual(nn.Module):
    """Two layers of x + B relu(A x)."""

    def __init__(self) -> None:
        super().__init__()
        self.ups = nn.ModuleList(nn.Linear(D, H, bias=False) for _ in range(2))
        self.downs = nn.ModuleList(nn.Linear(H, D, bias=False) for _ in range(2))

    def layer(self, index: int, x: torch.Tensor) -> torch.Tensor:
        down: torch.Tensor = self.downs[index](F.relu(self.ups[index](x)))
        return x + down

    def forward(self, x: torch.Tensor, save: bool = False) -> torch.Tensor:
        for index in range(2):
            x = checkpoint(self.layer, index, x, use_reentrant=False) if save else self.layer(index, x)
        return x.sum()


def test_two_residual_layers() -> None:
    block, data = Residual(), torch.randn(B, D)
    found = cost(block, lambda: block(data))
    assert found.kept_for_backward_bytes == 2 * BH + BD  # relu of each layer, and the second layer's input
    # Second layer's backward: all kept, d relu and d up beside it (the incoming gradient is an expanded scalar)
    assert found.peak_backward_bytes == 2 * BH + BD + 2 * BH + 2 * SCALAR


def test_two_residual_layers_with_checkpointing() -> None:
    """Between the passes only the second layer's input is kept; backward holds one recomputed layer at a time."""
    block, data = Residual(), torch.randn(B, D)
    found = cost(block, lambda: block(data, save=True))
    assert found.kept_for_backward_bytes == BD
    # input, recomputed relu, its gradient and the gradient of up's output
    assert found.peak_backward_bytes == BD + 3 * BH + 2 * SCALAR


def test_embedding_and_cross_entropy() -> None:
    vocab = 10
    embedding, head = nn.Embedding(vocab, D), nn.Linear(D, vocab, bias=False)
    ids = torch.arange(B)
    found = cost(nn.ModuleList([embedding, head]), lambda: F.cross_entropy(head(embedding(ids)), ids))
    # embedded rows, log-probabilities, and the weight total that nll_loss keeps
    assert found.kept_for_backward_bytes == BD + 4 * B * vocab + 4


def test_shared_storage_counts_once() -> None:
    data = torch.randn(B, D)
    weight = nn.Parameter(torch.randn(D))

    def forward() -> torch.Tensor:
        y = data * weight  # saved by both products below, as two views
        return (y[:2] * y[2:]).sum()

    found = measure_micro(forward, torch.Tensor.backward, [weight])[1]
    assert found.kept_for_backward_bytes == BD


def test_accumulation_counts_the_gradient_that_is_added() -> None:
    """Once a gradient exists, the next micro-batch's is a tensor of its own until it has been added."""
    linear, data = nn.Linear(D, H, bias=False), torch.randn(B, D)
    first, second = (cost(linear, lambda: linear(data).sum()) for _ in range(2))
    assert first.peak_backward_bytes == 2 * SCALAR
    assert second.peak_backward_bytes == 2 * SCALAR + 4 * D * H
    assert first.kept_for_backward_bytes == second.kept_for_backward_bytes == 0


def test_tensors_held_by_an_autograd_function_itself_are_seen() -> None:
    """saved_tensors_hooks would miss this one."""

    class Hoard(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
            ctx.hoard = x * 2  # type: ignore[attr-defined]
            return x.clone()

        @staticmethod
        def backward(ctx: object, grad: torch.Tensor) -> torch.Tensor:
            return grad * ctx.hoard  # type: ignore[attr-defined, no-any-return]

    weight = nn.Parameter(torch.randn(B, D))
    found = measure_micro(lambda: Hoard.apply(weight).sum(), torch.Tensor.backward, [weight])[1]
    assert found.kept_for_backward_bytes == BD


def test_rubbish_in_cycles_is_not_kept_and_counts_repeat() -> None:
    linear, data = nn.Linear(D, H), torch.randn(B, D)

    def forward() -> torch.Tensor:
        cycle: list[object] = [linear(data)]
        cycle.append(cycle)
        return linear(data).sum()

    found = {cost(linear, forward).kept_for_backward_bytes for _ in range(3)}
    assert found == {0}
    assert gc.isenabled()


@pytest.mark.parametrize("save", [False, True])
def test_peak_agrees_with_torch_memory_tracker(save: bool) -> None:
    """torch's own tracker, over the same two layers: activations plus temporaries at the peak of the whole pass."""
    from torch.distributed._tools.mem_tracker import MemTracker

    block, data = Residual(), torch.randn(B, D)
    found = cost(block, lambda: block(data, save=save))
    block.zero_grad()
    tracker = MemTracker()
    tracker.track_external(block, data)
    with tracker:
        block(data, save=save).backward()
    snapshot = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]
    names = {str(getattr(kind, "value", kind)): size for kind, size in snapshot.items()}
    gradients_at_peak = names.get("Gradient", 0)
    rest = names["Total"] - names["Parameter"] - gradients_at_peak - tensor_bytes([data])
    assert 0 <= found.peak_bytes - rest <= 4 * D * H  # theirs is at the peak of all, gradients included


def test_live_storages_numbers_and_peaks() -> None:
    with LiveStorages() as live:
        a = torch.zeros(10)
        start = live.mark()
        b = torch.zeros(5)
        view = b[2:]
        assert live.number(view) == live.number(b) == 2
        del b, view
        c = torch.zeros(3)
    assert live.peak(start, live.mark()) == 60
    assert live.peak(start, live.mark(), without=[1]) == 20
    assert live.alive(live.mark()) == 40 + 12
    assert live.number(torch.zeros(1)) is None
    del a, c


def test_module_bytes_count_tied_weights_once() -> None:
    a, b = nn.Linear(D, D, bias=False), nn.Linear(D, D, bias=False)
    both = nn.ModuleList([a, b])
    assert module_bytes(both) == 8 * D * D
    b.weight = a.weight
    assert module_bytes(both) == 4 * D * D
