"""Each fuzz target for some hundred inputs; `benchmarks/fuzz.py` is the long run, whose figures are in SECURITY.md."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz_targets import TARGETS
from hypothesis import given, settings
from hypothesis import strategies as st

EXAMPLES = {"gate": 400, "spec": 200, "record": 200, "items": 300, "leaderboard": 15}
CRASHES = Path(__file__).with_name("crashes")
"""Inputs that once failed, `TARGET-*`: each is a test for good."""


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_are_read_or_refused_in_one_line(name: str) -> None:
    @settings(max_examples=EXAMPLES[name])
    @given(st.binary(max_size=120))
    def run(data: bytes) -> None:
        TARGETS[name](data)

    run()


@pytest.mark.parametrize("path", sorted(CRASHES.glob("*")), ids=lambda path: path.name)
def test_what_once_failed(path: Path) -> None:
    TARGETS[path.name.partition("-")[0]](path.read_bytes())
