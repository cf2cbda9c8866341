"""Masks of the largest scores and their overlap."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.theory.masks import group_means, independent_iou, iou, mean_iou, top_mask


@given(st.floats(0.01, 1), st.integers(1, 200), st.integers(0, 10**6))
def test_a_mask_holds_the_largest(share: float, size: int, seed: int) -> None:
    scores = torch.rand(size, generator=torch.Generator().manual_seed(seed))
    mask = top_mask(scores, share)
    assert int(mask.sum()) == round(share * size)
    if mask.any() and not mask.all():
        assert scores[mask].min() >= scores[~mask].max()


def test_overlap_by_hand() -> None:
    a, b = torch.tensor([True, True, False, False]), torch.tensor([False, True, True, False])
    assert iou(a, b) == pytest.approx(1 / 3)
    assert iou(a, a) == 1
    assert iou(a, ~a) == 0
    assert iou(a & ~a, a & ~a) == 1
    assert mean_iou([a, b, a]) == pytest.approx((1 / 3 + 1 + 1 / 3) / 3)
    with pytest.raises(ValueError, match="1 masks"):
        mean_iou([a])


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_random_masks_overlap_as_the_formula_says(share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    masks = [top_mask(torch.rand(200_000, generator=generator), share) for _ in range(2)]
    assert mean_iou(masks) == pytest.approx(independent_iou(share), abs=0.005)


def test_the_formula_at_the_papers_shares() -> None:
    assert independent_iou(0.5) == pytest.approx(1 / 3)
    assert independent_iou(0.9) == pytest.approx(0.9 / 1.1)
    assert independent_iou(1.0) == 1


def test_averaging_over_batches_brings_out_what_masks_share() -> None:
    """Scores that are a common part and noise: the more batches are averaged, the larger the overlap."""
    generator = torch.Generator().manual_seed(0)
    common = torch.rand(5000, generator=generator)
    scores = common + 2 * torch.rand((16, 5000), generator=generator)
    overlaps = [mean_iou([top_mask(row, 0.3) for row in group_means(scores, size)]) for size in (1, 4, 8)]
    assert independent_iou(0.3) < overlaps[0] < overlaps[1] < overlaps[2] < 1


def test_groups_are_disjoint_and_rest_is_left_out() -> None:
    scores = torch.arange(5.0)[:, None].expand(5, 2)
    assert group_means(scores, 2).tolist() == [[0.5, 0.5], [2.5, 2.5]]


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_impossible_shares(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        top_mask(torch.zeros(3), share)
