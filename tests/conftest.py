"""Shared fixtures: a random tiny Llama with its tokenizer, the data pack, and a closed network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from harness.testing import byte_tokenizer, no_network, random_llama
from harness.testing.defense import forget_remote_code

collect_ignore = ["plugin_package"]  # its tests run where it is installed: test_new_plugins.py
settings.register_profile("lockbench", deadline=None, derandomize=True)  # nothing is timed; a failure fails again
settings.load_profile("lockbench")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HARNESS_WORKERS", "1")  # a worker's imports cost more than the cells of the tests
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers of pytest with two threads each take turns, slowly


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Design invariant 9: a connection to anything but this machine is an error."""
    no_network(monkeypatch)


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are as wide as they like: workers of pytest-xdist set this."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The data pack's folder; tests that need it skip where it does not exist."""
    candidates = [os.environ.get("HARNESS_DATA"), Path(__file__).parents[2] / "shared" / "data"]
    for candidate in candidates:
        if candidate and (Path(candidate) / "MANIFEST.md").exists():
            return Path(candidate)
    pytest.skip("the data pack is not here (set HARNESS_DATA)")


@pytest.fixture
def tiny_llama() -> Any:
    """A `Released` random Llama."""
    from harness.plugins import Released

    return Released(model=random_llama(), tokenizer=byte_tokenizer(), digest="0" * 64, name="tiny_llama")


@pytest.fixture
def remote_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place of this test's own for the remote code that transformers imports; what others imported is forgotten."""
    forget_remote_code(tmp_path / "modules", monkeypatch)
