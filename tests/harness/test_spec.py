"""The spec: layers, overrides, hashing, refusals before anything heavy is imported."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.budget import Budget
from harness.errors import UsageError
from harness.layers import layers, parse_value
from harness.spec import Spec, resolve


def refused(parse: Callable[[Any], Any], value: Any) -> Any:
    """What `parse` makes of a value, or the message with which it refuses; anything else it raises is a bug."""
    try:
        return parse(value)
    except UsageError as error:
        return str(error).strip()


def test_defaults_are_filled_in_and_hashed() -> None:
    spec = resolve({"defense": "dlr", "attack": "lora"})
    assert spec.model.name == "tiny"
    assert spec.attack["name"] == "lora"
    assert spec.attack["r"] > 0
    assert spec.id == resolve({"defense": {"name": "dlr"}}).id
    assert len(spec.id) == 16


def test_every_setting_changes_the_id() -> None:
    base = {"defense": {"name": "dlr"}, "attack": {"name": "lora"}}
    changes = [
        {"seed": 1},
        {"defense": {"name": "dlr", "depth": 5}},
        {"attack": {"name": "lora", "r": 3}},
        {"budget": "steps=9"},
        {"replicates": 3},
        {"utility": {"limit": 7}},
        {"task": "fictional_facts"},
        {"precision": "bf16"},
    ]
    ids = {resolve({**base, **change}).id for change in [{}, *changes]}
    assert len(ids) == len(changes) + 1


def test_a_resolved_spec_resolves_to_itself() -> None:
    spec = resolve({"defense": {"name": "dlr", "depth": 7}, "budget": "steps=5,memory=1GiB"})
    again = resolve(spec.model_dump(mode="json"))
    assert again == spec
    assert again.id == spec.id


def test_layers_defaults_file_environment_command_line(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("seed: 1\nreplicates: 5\nattack: {name: lora, r: 2, learning_rate: 1e-5}\n")
    environment = {"HARNESS_SEED": "2", "HARNESS_ATTACK__R": "4", "HARNESS_DATA": "/x", "OTHER_SEED": "9"}
    spec = resolve(layers(config, environment, {"defense": "dlr"}, ["attack.lora_alpha=64", "seed=3"]))
    assert (spec.seed, spec.replicates, spec.attack["r"], spec.attack["lora_alpha"]) == (3, 5, 4, 64)
    assert spec.attack["learning_rate"] == 1e-5
    assert spec.defense["name"] == "dlr"


def test_choosing_another_plugin_drops_settings_meant_for_the_first(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("attack: {name: lora, r: 2}\n")
    spec = resolve(layers(config, {}, {"attack": "full"}))
    assert spec.attack["name"] == "full"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"attack": "loar"}, "Did you mean 'lora'"),
        ({"attack": {"name": "lora", "rr": 3}}, "unknown setting of attack 'rr'"),
        ({"attack": {"name": "lora", "r": -1}}, "attack.r=-1"),
        ({"attack": {"name": "lora", "learning_rate": "fast"}}, "attack.learning_rate='fast'"),
        ({"seed": -1}, "spec.seed=-1"),
        ({"budget": "steps=-5"}, "budget.steps=-5"),
        ({"budget": "stpes=5"}, "Did you mean 'steps'"),
        ({"budget": "memory=8GiX"}, "expected a positive number"),
        ({"colour": 1}, "unknown setting of spec 'colour'"),
        ({"task": 3}, "expected a name or a mapping"),
    ],
)
def test_bad_values_name_themselves_and_what_is_allowed(raw: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        resolve(raw)
    assert "\n" not in str(caught.value)


def test_assignment_without_equals() -> None:
    with pytest.raises(UsageError, match="expected key=value"):
        layers(None, {}, {}, ["attack.r"])


@pytest.mark.parametrize("text", ["a: [1", "- 1", "42", ""])
def test_config_that_is_not_a_mapping(tmp_path: Path, text: str) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(text)
    with pytest.raises(UsageError, match=r"c\.yaml"):
        layers(config, {}, {})


@given(st.text(max_size=30))
def test_budget_parser_never_crashes(text: str) -> None:
    budget = refused(Budget.from_text, text)
    assert isinstance(budget, str) or all(value is None or value > 0 for value in budget.model_dump().values())


@given(st.integers(1, 10**9), st.sampled_from(["", "k", "KiB", "MiB", "GB"]))
def test_budget_units(number: int, unit: str) -> None:
    scale = {"": 1, "k": 1000, "KiB": 1024, "MiB": 2**20, "GB": 10**9}[unit]
    assert Budget.from_text(f"memory={number}{unit}").memory == number * scale


@given(st.text(max_size=20))
def test_values_never_crash(text: str) -> None:
    assert parse_value(text) is not NotImplemented
    assert parse_value(repr(1.5e-4)) == 1.5e-4


@given(
    st.dictionaries(
        st.sampled_from(["seed", "replicates", "budget", "attack", "model", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=8),
            lambda inner: st.dictionaries(st.text(max_size=5), inner, max_size=2),
            max_leaves=4,
        ),
        max_size=3,
    )
)
def test_resolve_takes_anything_and_answers_with_a_spec_or_one_line(raw: dict[str, object]) -> None:
    spec = refused(resolve, raw)
    assert isinstance(spec, Spec) or (spec and "\n" not in spec)


def test_refusal_and_resolution_import_no_torch() -> None:
    code = (
        "import sys; from harness.cli.main import main; "
        "assert main(['run', '--attack', 'loar']) == 2; assert main(['run', '--defense', 'dlr', '--dry-run']) == 0; "
        "assert main(['run', '--set', 'search.trials=3', '--dry-run']) == 0; assert main(['list']) == 0; "
        "bad = {'torch', 'transformers', 'numpy', 'datasets', 'pandas', 'optuna'} & set(sys.modules); "
        "assert not bad, bad"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
