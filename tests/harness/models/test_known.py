"""The known models are what their entries say."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from harness.models.known import (
    ENCODER_TINY,
    RESNET18,
    RESNET20,
    RESNET_TINY,
    SMOLLM2_135M,
    STORIES260K,
    TINY,
    KnownModel,
)
from harness.models.load import load_model


def check(model: KnownModel, data_dir: Path | None = None) -> None:
    released = load_model(model.name, data_dir=data_dir, known={model.name: model})
    assert released.model.num_parameters() == model.parameters
    assert "model.safetensors" in model.sha256


def test_tiny_is_shipped() -> None:
    if not (Path(str(files("harness.models"))) / "tiny").is_dir():
        pytest.skip("the weights of tiny are not there (python -m harness.models.recipe makes them)")
    check(TINY)


@pytest.mark.pack
def test_stories260k_is_in_the_pack(data_dir: Path) -> None:
    check(STORIES260K, data_dir)


@pytest.mark.parametrize("model", [TINY, STORIES260K, SMOLLM2_135M])
def test_every_entry_says_where_it_lives(model: KnownModel) -> None:
    assert sum(place is not None for place in (model.packaged, model.pack, model.hub)) == 1
    assert model.licence in ("MIT", "Apache-2.0")
    assert model.summary


@pytest.mark.parametrize(("model", "labels"), [(RESNET_TINY, 5), (RESNET18, 10), (RESNET20, 10), (ENCODER_TINY, 2)])
def test_a_built_classifier_has_the_parameters_it_says(model: KnownModel, labels: int) -> None:
    from harness.models import architectures

    assert model.build is not None
    module, _, function = model.build.partition(":")
    assert module == architectures.__name__
    built, _ = getattr(architectures, function)(None, labels)
    assert built.num_parameters() == model.parameters
    assert built.config.num_labels == labels
