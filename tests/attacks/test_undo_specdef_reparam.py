"""The undo of SpecDef's reparameterisation: pairs are found without names, and multiplied out exactly."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from attack_cases import ALPHA, LAYERS, build, context, lock_like_specdef, random_gpt2, released
from torch import nn

from attacks.linear_pairs import find_chains, matrix, merge
from attacks.undo_specdef_reparam import refactor
from harness.models.derived import put
from harness.models.digest import weights_digest
from harness.testing import random_llama

IDS = torch.arange(3, 27).view(2, 12)


def locked() -> Any:
    return released(lock_like_specdef(random_llama()))


def test_merging_restores_the_base_to_the_rounding_of_the_stored_factors() -> None:
    base, model = random_llama(), lock_like_specdef(random_llama())
    chains = find_chains(model, IDS)
    assert sorted(chains) == sorted([f"{name}.inflated", f"{name}.compensation"] for name in LAYERS)
    assert sorted(merge(model, chains)) == sorted(LAYERS)
    assert find_chains(model, IDS) == []
    before, after = base.state_dict(), model.state_dict()
    assert before.keys() == after.keys()
    for name, value in before.items():
        if name.removesuffix(".weight") in LAYERS:
            error = torch.linalg.matrix_norm(after[name] - value) / torch.linalg.matrix_norm(value)
            assert 0 < error < ALPHA * 2**-24
        else:
            assert torch.equal(after[name], value)


def test_chains_of_any_length_and_biases_and_transposed_matrices() -> None:
    model = random_gpt2()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter)
    logits = model(IDS).logits
    name = "transformer.h.1.mlp.c_fc"
    lock_like_specdef(model, (name,), alpha=10.0)
    inner = model.get_submodule(name)
    first, second = nn.Linear(128, 128).double(), nn.Linear(128, 128, bias=False).double()
    nn.init.orthogonal_(first.weight)
    second.weight.data.copy_(first.weight.T)
    shift = inner[1].bias.data.double() - first.bias.data @ second.weight.T @ inner[1].weight.double().T
    inner[1].bias.data.copy_(shift)
    model.set_submodule(name, nn.Sequential(nn.Sequential(inner[0], nn.Identity(), first.float()), second.float(),
                                            inner[1]))  # fmt: skip
    assert torch.allclose(model(IDS).logits, logits, atol=1e-3)
    chains = find_chains(model, IDS)
    assert chains == [[f"{name}.0.0", f"{name}.0.2", f"{name}.1", f"{name}.2"]]
    assert merge(model, chains) == [name]
    assert type(model.get_submodule(name)) is nn.Linear
    assert torch.allclose(model(IDS).logits, logits, atol=1e-3)


class Between(nn.Module):
    """Two linear layers that are not just one after the other."""

    def __init__(self, kind: str, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.kind, self.first, self.second = kind, first, second

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x)
        if self.kind == "read twice":
            out: torch.Tensor = self.second(h) + h
            return out
        out = self.second({"relu": torch.relu, "scaled": lambda h: 2 * h}[self.kind](h))
        return out


@pytest.mark.parametrize("kind", ["relu", "scaled", "read twice"])
def test_what_is_not_a_pair_is_left_alone(kind: str) -> None:
    model = lock_like_specdef(random_llama(), LAYERS[:1])
    inner = model.get_submodule(LAYERS[0])
    put(model, LAYERS[0], Between(kind, inner[0], inner[1]))
    logits = model(IDS).logits
    assert find_chains(model, IDS) == []
    assert torch.equal(model(IDS).logits, logits)  # no hook stays
    assert find_chains(random_llama(), IDS) == find_chains(random_gpt2(), IDS) == []


def test_after_merging_the_attack_goes_as_on_the_base_and_the_undo_is_billed() -> None:
    plain = build("full").attack(released("llama"), context())
    where = context()
    result = build("undo_specdef_reparam").attack(locked(), where)
    assert result.training.losses == pytest.approx(plain.training.losses, rel=1e-3)
    assert result.targets == plain.targets
    undo = where.meter.bills["undo"]
    assert undo.forward_flops > 0
    assert (undo.steps, undo.tokens) == (0, 0)
    assert result.report["parameters"][1] == plain.model.num_parameters() < result.report["parameters"][0]


@pytest.mark.parametrize("method", ["freeze", "scaled_lr", "fp64", "chain"])
def test_every_method_trains_what_the_naive_attack_spoils(method: str) -> None:
    naive = build("full").attack(locked(), context()).training.losses
    reference = build("full").attack(released("llama"), context()).training.losses
    target = locked()
    before = {name: value.clone() for name, value in target.model.state_dict().items()}
    result = build("undo_specdef_reparam", method=method).attack(target, context())
    losses = result.training.losses
    assert naive[-1] - reference[-1] > 0.05
    if method == "chain":  # other coordinates: at this rate it learns, and more slowly
        assert losses[-1] < losses[0] - 0.5
    else:
        assert losses == pytest.approx(reference, abs=0.02)
    assert result.report["inflation"] == pytest.approx([ALPHA] * 3, rel=1e-2)
    assert {parameter.dtype for parameter in result.model.parameters()} == {torch.float32}
    assert not result.training.unmoved
    after = result.model.state_dict()
    kept = [name for name, value in before.items() if name in after and torch.equal(after[name], value)]
    compensations = [f"{name}.compensation.weight" for name in LAYERS]
    assert sorted(kept) == (sorted(compensations) if method in ("freeze", "chain") else [])
    if method == "chain":
        factors = [after[f"{LAYERS[0]}.inflated.{index}.weight"] for index in range(3)]
        assert [tuple(factor.shape) for factor in factors] == [(32, 32), (32, 32), (64, 32)]
        assert result.report["parameters"][1] > result.report["parameters"][0]


@pytest.mark.parametrize("factors", [2, 5])
def test_the_chain_is_the_matrix_in_factors_of_its_root(factors: int) -> None:
    target = released(lock_like_specdef(random_llama(), LAYERS[:1]))
    whole = matrix(target.model.get_submodule(f"{LAYERS[0]}.inflated"))
    largest = float(torch.linalg.matrix_norm(whole, 2))
    refactor(target.model, f"{LAYERS[0]}.inflated", factors, context())
    links = [matrix(link) for link in target.model.get_submodule(f"{LAYERS[0]}.inflated")]
    assert len(links) == factors
    for link in links:
        assert float(torch.linalg.matrix_norm(link, 2)) == pytest.approx(largest ** (1 / factors), rel=1e-4)
    product = torch.linalg.multi_dot(links[::-1])
    assert torch.allclose(product, whole, atol=1e-6 * largest)


def test_without_a_lock_it_is_full_fine_tuning() -> None:
    plain = build("full", max_steps=3).attack(released("llama"), context()).model
    for method in ("merge", "freeze", "scaled_lr", "chain"):
        undone = build("undo_specdef_reparam", method=method, max_steps=3).attack(released("llama"), context())
        assert weights_digest(undone.model) == weights_digest(plain)
        assert undone.report["chains"] == []
    double = build("undo_specdef_reparam", method="fp64", max_steps=3).attack(released("llama"), context()).model
    for name, value in double.state_dict().items():
        assert torch.allclose(value, plain.state_dict()[name], atol=2e-3)


def test_a_release_is_not_changed_by_looking_for_pairs() -> None:
    model = lock_like_specdef(random_llama())
    copied = copy.deepcopy(model)
    find_chains(model, IDS)
    assert weights_digest(model) == weights_digest(copied)
