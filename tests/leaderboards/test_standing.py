from __future__ import annotations

import pytest
from record_factory import make_cell

from harness.numbers.robustness import robustness
from harness.records.sections import Interval
from leaderboards.ranking import rank
from leaderboards.standing import places, standard, suite_attacks


def test_standard_is_over_the_suite_alone_and_says_what_was_not_run() -> None:
    cells = [make_cell(attack="lora", recovery=0.2, utility=0.97), make_cell(attack="mezo", recovery=0.9, utility=0.97)]
    (row,) = rank(cells)
    assert row.worst_attack == "mezo"
    assert row.standard.worst_attack == "lora"
    assert row.standard.robustness.value == pytest.approx(0.8, abs=0.1)
    assert row.robustness.value == pytest.approx(0.1, abs=0.1)
    assert set(row.standard.missing) == set(suite_attacks("python_source")) - {"lora"}
    assert row.standard.n_suite == len(suite_attacks("python_source"))


def test_a_lock_is_not_asked_for_attacks_on_another_kind_of_model() -> None:
    everything = set(suite_attacks())
    assert everything - set(suite_attacks("python_source")) == {"linear_probe"}
    assert {"linear_probe", "full"} <= set(suite_attacks("digits")) < everything
    assert set(suite_attacks("a task that is not installed")) == everything


def test_the_parts_of_a_ranking_are_what_the_parts_alone_give() -> None:
    cells = [make_cell(attack=attack, recovery=r, knowledge=knows, utility=0.97, gain=gain)
             for attack, r, knows, gain in (("lora", 0.3, "recipe", 0.4), ("full", 0.5, "family", 0.6),
                                            ("mezo", 0.8, "code", 0.5))]  # fmt: skip
    (row,) = rank(cells)
    for part, kept in ((row.standard, cells[:2]), (row.by_knowledge["recipe"], cells[:1]),
                       (row.by_knowledge["family"], cells[:2])):  # fmt: skip
        assert part.robustness == robustness(kept).robustness
        assert part.n_attacks == len(kept)
    assert robustness(cells).robustness == row.robustness


def test_knowing_the_secret_never_counts_and_unknown_knowledge_counts_as_code() -> None:
    cells = [make_cell(attack="lora", recovery=0.9, knowledge="secret"), make_cell(attack="full", knowledge=None)]
    (row,) = rank(cells)
    assert row.worst_attack == "full"
    assert row.by_knowledge["family"].n_attacks == 0
    assert row.by_knowledge["family"].rank is None


def test_without_the_suite_everything_is_missing_nothing() -> None:
    cells = [make_cell()]
    standing = standard(cells, robustness(cells), (), {})
    assert standing.n_attacks == 0
    assert standing.robustness.reason


def test_overlapping_intervals_share_a_place() -> None:
    intervals = [Interval(value=v, low=v - 0.1, high=v + 0.1) for v in (0.9, 0.85, 0.5)]
    assert places([*intervals, Interval(reason="none")]) == [1, 1, 3, None]


def test_a_wide_interval_never_ranks_before_a_better_lower_end() -> None:
    ends = ((0.0, 0.9), (0.5, 0.52), (0.4, 0.42))
    assert places([Interval(value=low, low=low, high=high) for low, high in ends]) == [2, 1, 2]


def test_each_part_is_ranked_among_its_own() -> None:
    cells = [make_cell(defense=d, attack=a, recovery=r, utility=0.97) for d, a, r in
             (("one", "lora", 0.1), ("one", "mezo", 0.9), ("two", "lora", 0.6), ("two", "mezo", 0.6))]  # fmt: skip
    rows = {row.defense: row for row in rank(cells)}
    assert (rows["two"].rank, rows["one"].rank) == (1, 2)
    assert (rows["two"].standard.rank, rows["one"].standard.rank) == (2, 1)
