"""Every family: MLPs are found, observed by hooks, replaced, and the model still runs forward and backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from family_cases import HIDDEN, LAYERS, SHAPES, VOCAB, build
from torch import nn

from harness.errors import UsageError
from harness.models.families import InlineMLP, attention_modules, find_mlps, get_module, linear_modules, set_module


@pytest.fixture(params=SHAPES)
def model(request: pytest.FixtureRequest) -> Any:
    return build(request.param)


IDS = torch.arange(2 * 8).reshape(2, 8) % VOCAB


class Double(nn.Module):
    """A stand-in for a lock's module: twice what a linear map gives."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(HIDDEN, HIDDEN)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return 2 * self.linear(hidden)


def test_one_site_a_layer(model: Any) -> None:
    sites = find_mlps(model)
    assert [site.layer for site in sites] == list(range(LAYERS))
    assert {site.hidden_size for site in sites} == {HIDDEN}
    assert all(site.parameters == sum(p.numel() for p in site.module.parameters()) > 0 for site in sites)
    assert len(attention_modules(model)) == LAYERS


def test_sites_and_attention_share_no_parameter(model: Any) -> None:
    inside = {id(p) for site in find_mlps(model) for p in site.module.parameters()}
    attention = {id(p) for module in attention_modules(model).values() for p in module.parameters()}
    assert inside.isdisjoint(attention)
    assert inside | attention <= {id(p) for p in model.parameters()}


def test_hooks_capture_the_map(model: Any) -> None:
    """What a hook sees is exactly the module's input and output: distillation rests on this."""
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    handles = []
    for site in find_mlps(model):
        def hook(module: nn.Module, args: Any, output: torch.Tensor, name: str = site.name) -> None:
            seen[name] = (args[0], output)

        handles.append(site.module.register_forward_hook(hook))
    with torch.no_grad():
        model(IDS)
        for site in find_mlps(model):
            given, output = seen[site.name]
            assert given.shape == output.shape
            assert given.numel() == IDS.numel() * HIDDEN
            torch.testing.assert_close(site.module(given), output)
    for handle in handles:
        handle.remove()
    seen.clear()
    model(IDS)
    assert not seen


def test_replaced_model_runs_forward_and_backward(model: Any) -> None:
    before = model(IDS).logits
    names = [site.name for site in find_mlps(model)]
    new = {name: Double() for name in names}
    for name, module in new.items():
        set_module(model, name, module)
    assert {site.name: site.module for site in find_mlps(model)} == new
    assert all(get_module(model, name) is new[name] for name in names)
    output = model(IDS, labels=IDS)
    assert output.logits.shape == before.shape
    assert not torch.equal(output.logits, before)
    output.loss.backward()
    for module in new.values():
        assert module.linear.weight.grad is not None
        assert module.linear.weight.grad.abs().sum() > 0


def test_paths_say_where_a_replacement_stands(model: Any) -> None:
    for site in find_mlps(model):
        new = Double()
        set_module(model, site.name, new)
        assert model.get_submodule(site.path) is new
        assert all(isinstance(model.get_submodule(path), nn.Identity) for path in site.bypassed)


def test_a_derived_config_class_keeps_its_family() -> None:
    model = build("opt")
    base = type(model.config)
    model.config.__class__ = type("LockedConfig", (base,), {"model_type": "locked_opt"})
    assert [site.path for site in find_mlps(model)] == [f"model.decoder.layers.{index}.fc1" for index in range(LAYERS)]


def test_replacing_by_the_same_map_changes_nothing(model: Any) -> None:
    import copy

    before = model(IDS).logits
    for site in find_mlps(model):
        set_module(model, site.name, copy.deepcopy(site.module))
    torch.testing.assert_close(model(IDS).logits, before)


def test_linear_modules_are_matrices_without_head_and_embeddings(model: Any) -> None:
    found = linear_modules(model)
    head = model.get_output_embeddings()
    assert all(model.get_submodule(name) is module for name, module in found.items())
    assert head not in found.values()
    matrices = {id(p) for p in model.parameters() if p.ndim == 2}
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    assert {id(module.weight) for module in found.values()} == matrices - embeddings - {id(head.weight)}


def test_peft_wrapped_model() -> None:
    from peft import LoraConfig, get_peft_model

    model = build("opt")
    names = list(linear_modules(model))
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules=names))
    assert list(linear_modules(wrapped)) == [f"base_model.model.{name}.base_layer" for name in names]
    assert isinstance(find_mlps(wrapped)[0].module, InlineMLP)
    assert find_mlps(wrapped)[0].name.startswith("base_model.model.")
    assert torch.isfinite(wrapped(IDS).logits).all()


def test_replacing_one_linear_of_an_inline_mlp_keeps_the_others() -> None:
    model = build("opt")
    set_module(model, "model.decoder.layers.0.fc1", nn.Linear(HIDDEN, 24))
    assert isinstance(model.model.decoder.layers[0].fc2, nn.Linear)
    assert isinstance(find_mlps(model)[0].module, InlineMLP)


@pytest.mark.parametrize("name", ["model.layers.0.nothing", "model.nowhere.mlp", "mlp"])
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no module"):
        set_module(build("llama"), name, nn.Identity())


def test_families_without_a_replaceable_mlp_are_refused() -> None:
    from transformers import AutoConfig, AutoModelForCausalLM, T5Config, T5ForConditionalGeneration

    config = AutoConfig.for_model("bloom", vocab_size=8, hidden_size=8, n_layer=1, n_head=2)
    bloom = AutoModelForCausalLM.from_config(config)
    with pytest.raises(UsageError, match="bloom"):
        find_mlps(bloom)
    t5 = T5ForConditionalGeneration(T5Config(vocab_size=8, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2))
    with pytest.raises(UsageError, match="t5"):
        find_mlps(t5)
    with pytest.raises(UsageError, match="no config"):
        find_mlps(nn.Linear(2, 2))
