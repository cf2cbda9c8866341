"""How many sequences are sampled at once: as many as pay, or as have room on the device."""

from __future__ import annotations

import pytest

from harness.sampling import ROWS, _rows
from harness.testing import random_gpt2, random_llama


@pytest.mark.parametrize(("model", "row"), [
    (random_llama(), 2 * 4 * 64 * 2 * 2 * 8),  # keys and values, fp32, 64 tokens, 2 layers, 2 heads of 8
    (random_gpt2(), 2 * 4 * 64 * 2 * 4 * 8),
], ids=["llama", "gpt2"])  # fmt: skip
def test_keys_and_values_fit_half_of_what_is_free(model: object, row: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, rows in ((10**12, ROWS), (20 * row, 10), (row, 1)):
        monkeypatch.setattr("harness.models.placement.free_bytes", lambda device, free=free: free)
        assert _rows(model, 64, "cuda") == rows  # type: ignore[arg-type]
    assert _rows(model, 64, "cpu") == ROWS  # type: ignore[arg-type]
