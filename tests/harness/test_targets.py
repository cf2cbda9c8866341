"""Targets come from the model in hand, and a wrong name is an error that says what exists."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.targets import linear_targets
from harness.testing import random_llama

SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture(scope="module")
def model() -> Any:
    return random_llama()


@pytest.fixture(scope="module")
def locked() -> Any:
    from defenses.dlr import DLRSettings
    from defenses.dlr.build import convert_to_locked

    return convert_to_locked(random_llama(), DLRSettings(depth=4))


def test_all_linear_is_everything_but_embeddings_and_the_head(model: Any) -> None:
    found = linear_targets(model, "all-linear")
    assert found == [f"model.layers.{i}.{'mlp' if 'gate' in n or 'up' in n or 'down' in n else 'self_attn'}.{n}"
                     for i in range(2) for n in SEVEN]  # fmt: skip


def test_all_linear_finds_the_layers_of_a_lock(locked: Any) -> None:
    found = linear_targets(locked, "all-linear")
    assert len(found) == 2 * (4 + 2 * 4)
    assert "model.layers.1.mlp.blocks.3.expand" in found


def test_the_usual_list_of_names_is_refused_on_a_locked_model(locked: Any) -> None:
    """The list that peers ship would train a tenth of this model without a word."""
    with pytest.raises(UsageError, match=r"'gate_proj'.*q_proj, k_proj, v_proj, o_proj, reduce, expand.*all-linear"):
        linear_targets(locked, SEVEN)


@given(st.sets(st.sampled_from(SEVEN), min_size=1))
def test_names_select_exactly_their_layers_in_model_order(names: set[str]) -> None:
    everything = linear_targets(random_llama(), "all-linear")
    found = linear_targets(random_llama(), sorted(names))
    assert found == [name for name in everything if name.rpartition(".")[2] in names]


@given(st.sampled_from(SEVEN), st.integers(0, 1))
def test_an_expression_matches_whole_paths(name: str, layer: int) -> None:
    found = linear_targets(random_llama(), rf".*\.{layer}\..*{re.escape(name)}")
    assert [path.split(".")[2] for path in found] == [str(layer)]
    with pytest.raises(UsageError, match="whole path"):
        linear_targets(random_llama(), name)


@pytest.mark.parametrize(("spec", "says"), [([], "empty"), (["lm_head"], "'lm_head'"), (["proj"], "'proj'"),
                                            ("(", "not a regular expression"), ("", "whole path")])  # fmt: skip
def test_what_selects_nothing_is_an_error(model: Any, spec: str | list[str], says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        linear_targets(model, spec)


def test_a_model_without_linear_layers_is_an_error() -> None:
    import torch

    with pytest.raises(UsageError, match="no linear layers"):
        linear_targets(torch.nn.Embedding(3, 3), "all-linear")
