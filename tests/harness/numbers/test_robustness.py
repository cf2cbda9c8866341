from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_factory import METRIC, make_cell, make_items

from harness.numbers.control_bases import on_one_base
from harness.numbers.labels import label_of, labels
from harness.numbers.robustness import Cell, robustness
from harness.records.provenance import Weights
from harness.records.sections import Flag

ERROR = (Flag(flag="unmoved", severity="error", detail="x"),)


def test_the_strongest_attack_decides_and_is_named() -> None:
    cells = [
        make_cell(attack=name, recovery=r, utility=0.97) for name, r in (("lora", 0.3), ("full", 0.8), ("qlora", 0.1))
    ]
    found = robustness(cells)
    assert found.worst_attack == "full"
    assert found.robustness.value == pytest.approx(0.2, abs=0.05)
    assert found.robustness.low < found.robustness.value < found.robustness.high
    assert [outcome.label for outcome in found.attacks] == ["full", "lora", "qlora"]
    assert found.bounded == found.robustness


def test_the_interval_is_that_of_the_maximum() -> None:
    quiet, noisy = (
        make_cell(attack="full", recovery=0.8, noise=0.001),
        make_cell(attack="lora", recovery=0.7, noise=0.08),
    )
    found = robustness([quiet, noisy])
    ends = [outcome.recovery for outcome in found.attacks]
    assert found.robustness.low == pytest.approx(1 - max(r.high for r in ends))
    assert found.robustness.high == pytest.approx(1 - max(r.low for r in ends))
    assert found.robustness.low < robustness([quiet]).robustness.low


def test_the_best_reference_is_in_every_denominator() -> None:
    """An attack that learns half as much on the base must not look twice as strong."""
    strong, weak = make_cell(attack="full", recovery=0.6, gain=0.4), make_cell(attack="lora", recovery=1.0, gain=0.2)
    found = robustness([strong, weak])
    assert found.best_reference == "full"
    by_label = {outcome.label: outcome.recovery.value for outcome in found.attacks}
    assert by_label["lora"] == pytest.approx(0.5, abs=0.06)
    assert found.worst_attack == "full"


def test_seeds_of_one_attack_are_pooled_not_maximised() -> None:
    shared = [make_items(recovery=0.5, seeds=(10 * seed + 1, 10 * seed + 2)) for seed in (0, 1, 2)]
    cells = [make_cell(seed=seed, items=items) for seed, items in enumerate(shared)]
    found = robustness(cells)
    assert len(found.attacks) == 1
    assert len(found.attacks[0].ids) == 3
    assert found.robustness.n_seeds == 6


def test_cells_that_do_not_count_are_listed() -> None:
    cells = [make_cell(attack="full", recovery=0.3), make_cell(attack="lora", recovery=0.9, flags=ERROR),
             make_cell(attack="qlora", status="failed", reason="boom"),
             make_cell(attack="oracle", knowledge="secret")]  # fmt: skip
    found = robustness(cells)
    assert found.worst_attack == "full"
    assert {row.attack: row.reason.partition(":")[0] for row in found.excluded} == {
        "lora": "unmoved", "qlora": "failed", "oracle": "knows the lock's secret"}  # fmt: skip


def test_running_out_of_memory_counts_as_nothing_recovered_and_is_named() -> None:
    memory = make_cell(attack="full", status="out_of_memory", reason="cap")
    found = robustness([memory, make_cell(attack="lora", recovery=-0.4)])
    assert found.robustness.value == pytest.approx(1.0)
    assert [outcome.label for outcome in found.attacks if outcome.out_of_memory] == ["full"]
    assert robustness([memory, make_cell(attack="lora", recovery=0.7)]).worst_attack == "lora"


@pytest.mark.parametrize("kept", [("base", "locked"), ()])
def test_a_budget_that_is_too_small_for_the_base_too_says_nothing_of_a_lock(kept: tuple[str, ...]) -> None:
    whole = make_cell(attack="full", status="out_of_memory", reason="cap")
    starved = dataclasses.replace(whole, items=[item for item in whole.items if item.model in kept])
    found = robustness([starved])
    assert (found.robustness.value, found.attacks) == (None, [])
    assert [one.attack for one in found.excluded] == ["full"]
    assert "on the base ran out of memory too" in found.excluded[0].reason
    both = robustness([starved, make_cell(attack="lora", recovery=0.5)])
    assert [one.label for one in both.attacks] == ["lora"]


def test_a_lock_under_which_everything_ran_out_of_memory_has_no_lower_bound() -> None:
    found = robustness([make_cell(attack="full", status="out_of_memory")])
    assert (found.robustness.value, found.robustness.low) == (1.0, None)
    assert found.robustness.reason
    assert robustness([]).robustness.reason == "no cell counts"


def test_a_collapsed_model_fails_only_in_the_bounded_column() -> None:
    collapsed = make_cell(attack="full", recovery=0.9, utility=0.97, attacked_utility=0.6)
    found = robustness([collapsed, make_cell(attack="lora", recovery=0.3, utility=0.97)])
    assert found.robustness.value == pytest.approx(0.1, abs=0.06)
    assert found.bounded.value == pytest.approx(0.7, abs=0.06)
    assert [outcome.label for outcome in found.attacks if outcome.collapsed] == ["full"]


def test_where_every_attack_collapsed_nothing_is_known_of_one_that_keeps_utility() -> None:
    cells = [make_cell(attack=name, recovery=0.9, utility=0.97, attacked_utility=0.6) for name in ("full", "lora")]
    starved = make_cell(attack="full_8bit", utility=0.97, status="out_of_memory")
    found = robustness([*cells, starved])
    assert found.robustness.value == pytest.approx(0.1, abs=0.06)
    assert found.bounded.value is None
    assert "every attack collapsed" in (found.bounded.reason or "")


def test_a_lock_that_breaks_utility_itself_gets_no_credit_for_collapse() -> None:
    found = robustness([make_cell(recovery=0.9, utility=0.8, attacked_utility=0.8)])
    assert found.robustness.value == pytest.approx(0.1, abs=0.06)
    assert found.bounded.value is None
    assert "locked model itself" in (found.bounded.reason or "")


def test_an_undefined_recovery_leaves_the_lock_unranked() -> None:
    found = robustness([make_cell(gain=0.0)])
    assert found.robustness.value is None
    assert "undefined" in (found.robustness.reason or "")


def test_cells_scored_on_other_items_are_not_compared() -> None:
    found = robustness([make_cell(attack="full"), make_cell(attack="lora", items=make_items(n=30))])
    assert len(found.attacks) == 1
    assert "other items" in found.excluded[0].reason


def test_labels_tell_settings_apart() -> None:
    choices = [{"name": "lora", "r": 8, "alpha": 1}, {"name": "lora", "r": 16, "alpha": 1}, {"name": "full"}]
    known = labels(choices)
    assert [label_of(known, choice) for choice in choices] == ["lora (r=8)", "lora (r=16)", "full"]


def controlled(
    seed: int, *, digest: str, control: str | None = "control of pmp", shift: float = 0.0, **effects: Any
) -> Cell:
    """A cell of a lock that pretrains: its base is a control of its own, `shift` better than another seed's."""
    items = [dataclasses.replace(row, score=row.score + shift * (row.metric == METRIC)) for row in make_items(
        seeds=(10 * seed + 1, 10 * seed + 2), rng=seed, **effects)]  # fmt: skip
    cell = make_cell(defense="pmp", seed=seed, items=items)
    provenance = cell.record.provenance.model_copy(update={"weights": Weights(base=digest * 64)})
    model = cell.record.model.model_copy(update={"control": control})
    return Cell(cell.record.model_copy(update={"provenance": provenance, "model": model}), items)


def test_seeds_of_a_lock_that_pretrains_count_together_though_each_has_its_own_base() -> None:
    cells = [controlled(seed, digest="abc"[seed], recovery=r, noise=0.001) for seed, r in enumerate((0.4, 0.5, 0.6))]
    found = robustness(cells)
    assert found.excluded == []
    (outcome,) = found.attacks
    assert len(outcome.ids) == 3
    assert outcome.recovery.n_seeds == 6
    assert outcome.recovery.value == pytest.approx(0.5, abs=0.01)
    alone = robustness(cells[1:2]).attacks[0].recovery
    assert outcome.recovery.high - outcome.recovery.low > alone.high - alone.low  # the seeds disagree, and it shows


@given(st.floats(-5, 5), st.floats(-5, 5), st.sampled_from([0.25, 1.0, 4.0]))
def test_how_good_a_control_is_says_nothing_about_the_lock(first: float, second: float, easy: float) -> None:
    """Neither where it starts nor, but for the noise of the scores, how much more it can be taught."""
    quiet = {"noise": 1e-6}
    plain = robustness([controlled(0, digest="a", recovery=0.4, **quiet),
                        controlled(1, digest="b", recovery=0.6, **quiet)])  # fmt: skip
    moved = robustness([controlled(0, digest="a", recovery=0.4, shift=first, **quiet),
                        controlled(1, digest="b", recovery=0.6, shift=second, gain=0.4 * easy, **quiet)])  # fmt: skip
    for end in ("value", "low", "high"):
        assert getattr(moved.robustness, end) == pytest.approx(getattr(plain.robustness, end), abs=1e-4)


def test_cells_of_one_base_are_left_as_they_are() -> None:
    cells = [controlled(0, digest="a"), controlled(1, digest="a")]
    assert all(on_one_base(cells)[cell.record.id] == cell.models for cell in cells)


@pytest.mark.parametrize(("seed", "control"), [(1, None), (0, "control of pmp")])
def test_another_base_without_a_reason_is_not_compared(seed: int, control: str | None) -> None:
    """Without a control the base is the same model for every seed; with one, it is the same for one seed."""
    other = controlled(seed, digest="b", control=control)
    if not seed:
        spec = {**other.record.spec, "attack": {"name": "full"}}
        other = Cell(other.record.model_copy(update={"spec": spec, "id": "f" * 16}), other.items)
    found = robustness([controlled(0, digest="a", control=control), other])
    (excluded,) = found.excluded
    assert excluded.reason == f"its base has other weights than that of cell {found.attacks[0].ids[0]}"


def test_a_cell_whose_models_met_different_items_is_left_out_and_denies_nothing() -> None:
    good, odd, seeds = (make_cell(attack=attack) for attack in ("full", "lora", "mezo"))

    def without(cell: Cell, *sides: tuple[str, int | None]) -> Cell:
        kept = [row for row in cell.items if row.metric != METRIC or (row.model, row.seed) not in sides
                or not row.item.endswith("0")]  # fmt: skip
        assert len(kept) < len(cell.items)
        return Cell(cell.record, kept)

    fewer, uneven = without(odd, ("attacked", 1), ("attacked", 2)), without(seeds, ("attacked", 1))
    result = robustness([good, fewer, uneven])
    assert [outcome.label for outcome in result.attacks] == ["full"]
    reasons = {one.attack: one.reason for one in result.excluded}
    assert reasons["lora"] == "its models were scored on different items"
    assert reasons["mezo"].startswith("the seeds of attacked did not score the same items")
    assert result.robustness == robustness([good]).robustness


def test_locks_have_one_name_in_whatever_order_their_settings_are() -> None:
    one, other = ({"name": "dlr", "opt": opt} for opt in ({"a": 1, "b": 2}, {"b": 2, "a": 1}))
    more = {"name": "dlr", "opt": {"b": 3, "a": 1}}
    names = [set(labels(locks).values()) for locks in ([one, more], [more, other], [other, more, one])]
    assert names[0] == names[1] == names[2]
