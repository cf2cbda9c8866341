"""Warnings over all attacks of a row: each fault is planted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from record_factory import make_cell

from harness.bill import Bill
from harness.numbers.robustness import robustness
from harness.records.sections import Flag
from leaderboards.ranking import rank
from leaderboards.rows import board_table
from leaderboards.soundness import contains, length_warnings

FULL = ["embed.weight", "layers.0.attn.q.weight", "layers.0.mlp.up.weight"]
LORA = ["layers.0.attn.q", "layers.0.mlp.up"]
ATTENTION = ["layers.0.attn.q.weight"]


def cell(attack: str, recovery: float, targets: list[str], **more: Any) -> Any:
    made = make_cell(attack=attack, recovery=recovery, **more)
    record = made.record
    record = record.model_copy(update={"provenance": record.provenance.model_copy(update={"targets": targets})})
    return type(made)(record, made.items)


def warned(*cells: Any) -> list[str]:
    (row,) = rank(list(cells))
    return row.warnings


@pytest.mark.parametrize(("name", "targets"), [("lora", LORA), ("frozen_mlp", ATTENTION)])
def test_a_superset_attack_that_loses_to_its_subset_is_under_tuned(name: str, targets: list[str]) -> None:
    cells = [cell("full", 0.3, FULL), cell(name, 0.9, targets)]
    (text,) = warned(*cells)
    assert text.startswith(f"full recovers clearly less than {name}")
    assert text.endswith("full is under-tuned")
    assert any(f"warning: {text}" in note for note in board_table(rank(cells), []).notes)


def test_a_superset_attack_that_wins_or_ties_is_sound() -> None:
    assert warned(cell("full", 0.9, FULL), cell("lora", 0.5, LORA), cell("frozen_mlp", 0.3, ATTENTION)) == []
    assert warned(cell("full", 0.5, FULL, noise=0.2), cell("lora", 0.51, LORA, noise=0.2)) == []


def test_the_strongest_attack_on_the_same_targets_speaks_for_all() -> None:
    assert warned(cell("mezo", 0.1, FULL), cell("full", 0.9, FULL), cell("lora", 0.5, LORA)) == []


def test_records_that_name_no_targets_say_nothing() -> None:
    assert warned(cell("full", 0.3, []), cell("lora", 0.9, [])) == []


def test_a_lock_whose_every_attack_collapsed_for_nothing_is_not_called_safe() -> None:
    (text,) = warned(cell("full", -0.4, FULL, attacked_utility=0.5))
    assert text.startswith("the worst attack, full, collapsed")
    assert warned(cell("full", 0.4, FULL, attacked_utility=0.5)) == []


IDLE = (Flag(flag="loss_not_falling", severity="error", detail="reference: the loss went from 4.1 to 4.2"),)


def test_an_attack_that_does_not_count_and_went_further_is_named() -> None:
    (text,) = warned(cell("full", 0.1, FULL), cell("slow", 0.8, FULL, flags=IDLE))
    assert text.startswith("slow does not count (loss_not_falling), yet it gained more")
    (text,) = warned(cell("slow", 0.8, FULL, flags=IDLE))
    assert text.startswith("slow does not count")


def test_it_is_named_among_those_who_know_as_little_where_an_undo_went_further() -> None:
    plain = cell("full", 0.1, FULL, knowledge="recipe"), cell("slow", 0.8, FULL, flags=IDLE, knowledge="recipe")
    texts = warned(cell("undo", 0.9, FULL), *plain)
    assert [text.partition(",")[0] for text in texts] == [f"among those who know at most the {name}"
                                                          for name in ("recipe", "family")]  # fmt: skip
    assert all("slow does not count (loss_not_falling)" in text for text in texts)


@pytest.mark.parametrize("other", [
    cell("slow", 0.3, FULL, flags=IDLE), cell("slow", 0.8, FULL, flags=IDLE, knowledge="secret"),
    cell("slow", 0.8, FULL, status="failed")])  # fmt: skip
def test_one_that_went_less_far_or_knew_the_secret_is_not(other: Any) -> None:
    assert warned(cell("full", 0.5, FULL), other) == []
    assert warned(cell("full", 0.5, FULL), cell("slow", -0.4, FULL, flags=IDLE)) == []


def test_containment_is_by_whole_path_components() -> None:
    assert contains(FULL, LORA)
    assert contains(FULL, FULL)
    assert not contains(LORA, FULL)
    assert not contains(["layers.10.mlp.weight"], ["layers.1"])
    assert not contains(FULL, [])


@pytest.mark.parametrize(("times", "recovery", "named"), [(8, 1.0, True), (1.2, 1.0, False), (8, 0.25, False)])
def test_an_undo_that_a_longer_reference_hides_is_named(times: float, recovery: float, named: bool) -> None:
    undo = make_cell(attack="undo_it", recovery=recovery, gain=0.4)
    long = make_cell(attack="for_long", recovery=0.3, gain=0.8)
    cost = long.record.cost
    assert cost.reference is not None
    dear = cost.reference.model_copy(update={"forward_flops": times * cost.reference.flops, "backward_flops": 0.0})
    record = long.record.model_copy(update={"cost": cost.model_copy(update={"reference": dear})})
    cells = [undo, replace(long, record=record)]
    found = length_warnings(robustness(cells), [each.record for each in cells])
    assert [line.startswith("undo_it recovers") and "against for_long" in line for line in found] == [True] * named
    assert named == any("undo_it recovers" in line for row in rank(cells) for line in row.warnings)


def test_it_is_named_among_those_who_know_as_little_where_an_undo_trained_as_long() -> None:
    short = make_cell(attack="short", recovery=1.0, gain=0.4, knowledge="recipe")
    long = make_cell(attack="for_long", recovery=0.3, gain=0.8, knowledge="recipe")
    undo = make_cell(attack="undo_it", recovery=1.0, gain=0.8)
    dear = long.record.cost.model_copy(update={"reference": Bill(forward_flops=1e13)})
    cells = [short, undo, replace(long, record=long.record.model_copy(update={"cost": dear}))]
    (row,) = rank(cells)
    assert row.worst_attack == "undo_it"
    assert [text.partition(" recovers")[0] for text in row.warnings if "short recovers" in text] == [
        f"among those who know at most the {name}, short" for name in ("recipe", "family")]  # fmt: skip


@pytest.mark.parametrize(("sizes", "named"), [((8,), True), ((1,), False), ((8, 4), False), ((4, 8), True)])
def test_an_attack_that_ran_out_of_memory_in_large_micro_batches_alone_is_named(
    sizes: tuple[int, ...], named: bool
) -> None:
    """The first of `sizes` ran out of memory, the others did not."""
    attacks = [{"name": "full", "per_device_train_batch_size": size} for size in sizes]
    cells = [make_cell(attack=attacks[0], status="out_of_memory"), make_cell(attack="lora"),
             *(make_cell(attack=attack) for attack in attacks[1:])]  # fmt: skip
    (row,) = rank(cells)
    assert any(f"ran out of memory in micro-batches of {sizes[0]} " in text for text in row.warnings) == named
