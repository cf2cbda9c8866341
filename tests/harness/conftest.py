"""What tests of several folders here start from."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random two-layer Llama as a local folder."""
    from harness.testing import byte_tokenizer, random_llama

    folder = tmp_path_factory.mktemp("models") / "random"
    random_llama().save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)
