"""First weights: the partition is the MLP where every block reads x, and greedy starts far below the zero map."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from defenses.dlr import DLRSettings
from defenses.dlr.build import Swap, describe
from defenses.dlr.distill import relative_errors
from defenses.dlr.initial import greedy_init, merged_slices, partition_init, random_init, set_gain


def swap_of(family: str, **settings: Any) -> Swap:
    torch.manual_seed(0)
    model: Any = (
        GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=32, n_layer=1, n_head=2)) if family == "gpt2"
        else LlamaForCausalLM(LlamaConfig(vocab_size=32, hidden_size=32, intermediate_size=72, num_hidden_layers=1,
                                          num_attention_heads=2)))  # fmt: skip
    model.eval()
    for name, parameter in model.named_parameters():
        if "mlp" in name:  # weights of a trained size, and biases that are not zero
            torch.nn.init.normal_(parameter, std=0.3)
    return Swap(model, describe(model, DLRSettings(**settings)))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("norm", ["none", "rms"])
def test_partition_is_the_mlp_when_every_block_reads_x(family: str, norm: str) -> None:
    swap = swap_of(family, depth=5, init="partition", norm=norm)
    net, mlp = swap.nets[0], swap.sites[0].module
    x = 1.7 * functional.normalize(torch.randn(50, 32), dim=-1) * 32**0.5  # of one root mean square, as after a norm
    net.gain.fill_(4.0)
    partition_init(net, mlp, 1.7)
    assert sum(p.numel() for p in net.parameters()) == swap.sites[0].parameters
    parallel = net.gain * sum(block(x) - x for block in net.blocks) + (0 if net.shift is None else net.shift)
    assert torch.allclose(parallel, mlp(x), atol=1e-4)
    assert not torch.allclose(net(x), mlp(x), atol=1e-2)  # in series it is deep, and another function


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("norm", ["none", "rms"])
def test_merging_the_slices_gives_the_mlp_back(family: str, norm: str) -> None:
    swap = swap_of(family, depth=5, init="partition", norm=norm)
    mlp = swap.sites[0].module
    before = {name: value.clone() for name, value in mlp.state_dict().items()}
    swap.nets[0].gain.fill_(0.5)
    partition_init(swap.nets[0], mlp, 2.0)
    with torch.no_grad():
        for parameter in mlp.parameters():
            parameter.zero_()
    merged_slices(swap.nets[0], mlp, 2.0)
    assert all(torch.allclose(value, before[name], atol=1e-6) for name, value in mlp.state_dict().items())


@pytest.mark.parametrize("head", ["residual", "learned"])
@pytest.mark.parametrize("norm", ["none", "rms"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_greedy_starts_below_the_zero_map(family: str, norm: str, head: str) -> None:
    swap = swap_of(family, depth=6, norm=norm, head=head)
    net, mlp = swap.nets[0], swap.sites[0].module
    x = torch.randn(3000, 32)
    y = mlp(x).detach()
    random_init(net, torch.Generator().manual_seed(1))
    set_gain(net, x, y)
    assert float(relative_errors([net(x[2000:])], [y[2000:]])[0]) > 0.95
    greedy_init(net, x[:2000], y[:2000])
    assert float(relative_errors([net(x[2000:])], [y[2000:]])[0]) < 0.9


def test_gain_is_a_power_of_two_that_makes_the_stream_move() -> None:
    swap = swap_of("llama", depth=4)
    net = swap.nets[0]
    for factor in (1e-3, 0.3, 1.0, 40.0):
        x = torch.randn(500, 32)
        set_gain(net, x, factor * x)
        mantissa, _ = torch.frexp(net.gain)
        assert float(mantissa) == 0.5
        assert 0.7 < factor / float(net.gain) < 1.42
