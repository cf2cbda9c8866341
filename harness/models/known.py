"""Models known by name. Imports no torch: `harness list` reads this."""

from __future__ import annotations

from pydantic import Field

from harness.settings import Settings


class KnownModel(Settings):
    """Where a named model lives and what it is."""

    name: str
    """Name for `--model`."""
    summary: str
    """One line."""
    parameters: int
    """Number of parameters."""
    licence: str
    """SPDX identifier of the weights."""
    packaged: str | None = None
    """Folder inside the package `harness.models`, for a shipped model."""
    pack: str | None = None
    """Folder inside the data pack."""
    hub: str | None = None
    """Hub id."""
    sha256: dict[str, str] = Field(default_factory=dict)
    """sha256 by file name, checked at load."""


STORIES260K = KnownModel(
    name="stories260k", summary="Llama, 260 k parameters, children's stories (data pack)", parameters=260_032,
    licence="MIT", pack="models/stories260k",
    sha256={"model.safetensors": "407a7c581bdd66972383ce9ad24857713fb98786d06ea564a2fe9b34ebe77dfd"},
)  # fmt: skip
SMOLLM2_135M = KnownModel(
    name="smollm2-135m", summary="SmolLM2-135M-Instruct (harness fetch; without a hub, de-quantised Q4_1)",
    parameters=134_515_008, licence="Apache-2.0", hub="HuggingFaceTB/SmolLM2-135M-Instruct",
)  # fmt: skip
TINY = KnownModel(
    name="tiny", summary="Llama, 1.25 M parameters, pretrained by this project (shipped)", parameters=1_246_592,
    licence="Apache-2.0", packaged="tiny",
    sha256={
        "config.json": "69072432e8024fa3c124eca3086e8318cf669b87b59d8ac405e4adacbc3b1334",
        "generation_config.json": "ce42f833eee1abaae685335e04eadea08a9cb4929c19e9b13ee05cabe78f3224",
        "model.safetensors": "1760f75fc0cff158584f0ad4c3509563e25913b647723be03e25c6ee08d67f86",
        "tokenizer.json": "ced606addf5308cbaf0281d339542373b88709f7742d8278578c648f2fac5a32",
        "tokenizer_config.json": "6ff8d9f6bd227bed17293eb3554db72a31e82daa6f127d7689c95bd65c4ac3ad",
    },
)  # fmt: skip
