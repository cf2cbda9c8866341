from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_factory import make_cell

from harness.records.sections import Flag
from leaderboards.summary import cell_summary, utility_table


def lines_of(text: str, start: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith(start)]
    return line


def test_the_table_says_what_the_record_says() -> None:
    record = make_cell(recovery=0.4, utility=0.97, kept=5 << 20).record
    text = cell_summary(record)
    assert f"{record.recovery.value:.3f}" in lines_of(text, "recovery")
    assert f"[{record.recovery.low:.3f}, {record.recovery.high:.3f}]" in lines_of(text, "recovery")
    assert "60 items, 2 seeds" in lines_of(text, "recovery")
    assert "2.50 x" in lines_of(text, "kept for backward")
    assert "6.00 G" in lines_of(text, "FLOPs")
    assert "0.970" in lines_of(text, "pairs")
    assert "no flags" in text


def test_collapse_memory_and_errors_cannot_be_overlooked() -> None:
    collapsed = cell_summary(make_cell(utility=0.97, attacked_utility=0.6).record)
    assert "COLLAPSED" in collapsed.split("\n\n")[1]
    memory = cell_summary(make_cell(status="out_of_memory", reason="needs 3 GiB, budget.memory is 2 GiB").record)
    assert "OUT OF MEMORY: needs 3 GiB" in memory.split("\n\n")[1]
    assert "undefined" in lines_of(memory, "recovery")
    flagged = cell_summary(make_cell(flags=(Flag(flag="unmoved", severity="error", detail="layer.3"),)).record)
    assert "NOT COUNTED" in flagged
    assert "layer.3" in flagged


@given(reason=st.text(max_size=300), detail=st.text(max_size=300), task=st.text(min_size=1, max_size=150))
def test_it_fits_in_a_hundred_columns_whatever_the_texts(reason: str, detail: str, task: str) -> None:
    flags = (Flag(flag="x" * 30, severity="warning", detail=detail),)
    record = make_cell(status="failed", reason=reason, flags=flags).record
    text = cell_summary(record.model_copy(update={"spec": {**record.spec, "task": {"name": task}}}))
    assert max(map(len, text.splitlines())) <= 100
    assert "\x1b" not in text


@pytest.mark.parametrize("status", ["failed", "out_of_memory", "over_budget", "unavailable", "skipped", "interrupted"])
def test_every_outcome_has_a_table(status: str) -> None:
    record = make_cell(status=status, items=[]).record
    assert status.replace("_", " ").upper() in cell_summary(record)


def test_utility_of_one_model_is_a_table() -> None:
    scores = {"tasks": {"pairs": {"metric": "acc", "score": 0.91, "chance": 0.5, "n": 600}},
              "perplexity": {"corpus": "docs", "per_token": 12.5, "bits_per_byte": 2.1, "tokens": 900}}  # fmt: skip
    text = utility_table(scores)
    assert "0.910" in lines_of(text, "pairs")
    assert "12.500" in lines_of(text, "perplexity (docs)")
