"""PMP: the complement stays, the ticket moves, the share is kept, the control differs in the mask only."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pmp_cases import SMALL, base, context, lock, locked, mask_of, start

from defenses.pmp import PMPSettings
from defenses.pmp.mask import compare, iou, masked_parameters, pack, top, unpack
from harness.errors import UsageError
from harness.models.digest import weights_digest


@pytest.mark.parametrize("optim", ["adamw_torch", "muon", "sgd"])
def test_the_complement_is_bit_for_bit_what_it_was_at_init(optim: str) -> None:
    """Weight decay moves entries without a gradient, and Muon whole matrices: neither may reach the complement."""
    result = locked(optim=optim, weight_decay=0.3)
    init, named = start(), dict(result.model.named_parameters())
    mask = mask_of(result)
    assert sum(int((~ticket).sum()) for ticket in mask.values()) > 5000
    for name, ticket in mask.items():
        assert torch.equal(named[name][~ticket], init[name][~ticket]), name


def test_the_ticket_and_everything_the_mask_leaves_out_moves() -> None:
    result = locked()
    init, mask = start(), mask_of(result)
    for name, parameter in result.model.named_parameters():
        moved = parameter != init[name]
        chosen = moved[mask[name]] if name in mask else moved
        assert not chosen.numel() or chosen.float().mean() > 0.9, name
    assert not any("embed" in name or "norm" in name or "lm_head" in name for name in mask)


@pytest.mark.parametrize("rho", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("variant", ["paper", "authors_code"])
def test_rho_is_the_share_that_trains(rho: float, variant: str) -> None:
    result = locked(rho=rho, variant=variant, max_steps=1, discovery_steps=2)
    mask = mask_of(result)
    covered = masked_parameters(result.model, everything=variant == "authors_code")
    assert {name: part.shape for name, part in mask.items()} == {name: p.shape for name, p in covered.items()}
    total = sum(part.numel() for part in mask.values())
    assert sum(int(part.sum()) for part in mask.values()) == round(rho * total) == result.report["ticket"]


def test_the_authors_code_shrinks_the_complement_instead() -> None:
    result = locked(variant="authors_code")
    init, named, mask = start(), dict(result.model.named_parameters()), mask_of(result)
    rest = torch.cat([named[name][~ticket] for name, ticket in mask.items()])
    assert 0 < float(rest.norm()) <= 0.02
    assert result.report["complement_norm_init"] > 1
    before = torch.cat([init[name][~ticket] for name, ticket in mask.items()])
    assert torch.corrcoef(torch.stack([rest, before]))[0, 1] > 0.999  # scaled, not trained


def test_the_control_has_the_same_start_and_tokens_and_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    import defenses.pmp.pretrain as pretrain

    seen: list[dict[str, Any]] = []
    real = pretrain.train

    def train(model: Any, batches: Any, settings: Any, *rest: Any, **more: Any) -> Any:
        ids = [batches(step, 0)["input_ids"].tolist() for step in range(settings.max_steps)]
        seen.append({"init": weights_digest(model), "ids": ids, "settings": settings.max_steps})
        return real(model, batches, settings, *rest, **more)

    monkeypatch.setattr(pretrain, "train", train)
    where = context()
    with where.meter.stage("lock"):
        control = lock().control(base(), where)
    lock().lock(base(), context())
    assert seen[0] == seen[1]
    assert where.meter.bills["lock"].tokens == 12 * 4 * 32
    assert control.secret is None
    init = start()
    assert all((p != init[name]).float().mean() > 0.9 for name, p in control.model.named_parameters())


def test_locks_that_differ_in_the_mask_only_share_a_control() -> None:
    assert lock(rho=0.9, variant="authors_code").control_settings() == lock().control_settings()
    assert lock(max_steps=13).control_settings() != lock().control_settings()


def test_the_seed_decides_everything() -> None:
    first, again = locked(), lock().lock(base(), context())
    other = lock().lock(base(), context(seed=1))
    assert first.secret is not None
    assert weights_digest(again.model) == weights_digest(first.model)
    assert all(torch.equal(bits, first.secret[name]) for name, bits in (again.secret or {}).items())
    assert compare(other.secret or {}, first.secret)["mask_iou"] < 0.9


@pytest.mark.parametrize(("distance", "steps", "fired"), [(1.0, 4, True), (0.0, 6, False)])
def test_discovery_ends_when_masks_agree_and_rewinds(distance: float, steps: int, fired: bool) -> None:
    from defenses.pmp.discover import discover
    from defenses.pmp.pretrain import _batches, init_seed, initial_model

    settings, where = PMPSettings(**SMALL | {"mask_distance": distance, "mask_patience": 3}), context()
    model = initial_model(base().model, init_seed(where.seed))
    before = weights_digest(model)
    _, report = discover(model, _batches(base(), settings, where), settings, where)
    assert (report["steps"], report["converged"]) == (steps, fired)
    assert len(report["consecutive_iou"]) == steps - 1
    assert weights_digest(model) == before


@pytest.mark.parametrize("average", [True, False])
def test_scores_are_of_all_batches_or_of_the_last(average: bool) -> None:
    from defenses.pmp.discover import Scores

    layer = torch.nn.Linear(3, 2)
    scores = Scores({"weight": layer.weight}, average=average)
    inputs, wanted = [torch.tensor([[1.0, -2.0, 3.0]]), torch.tensor([[-5.0, 0.0, 1.0]])], []
    for x in inputs:
        layer.zero_grad()
        layer(x).sum().backward()
        wanted.append(layer.weight.grad.abs())  # type: ignore[union-attr]
    assert torch.equal(scores.values["weight"], sum(wanted) if average else wanted[-1])


@given(values=st.lists(st.integers(0, 4), min_size=2, max_size=40), rho=st.floats(0.05, 0.95))
def test_top_takes_exactly_so_many_and_none_smaller_than_what_it_leaves(values: list[int], rho: float) -> None:
    flat = torch.tensor(values, dtype=torch.float32)
    mask = top({"a": flat[:1], "b": flat[1:]}, rho)
    chosen = torch.cat([mask["a"], mask["b"]])
    assert int(chosen.sum()) == max(round(rho * len(values)), 1)
    if not chosen.all():
        assert flat[chosen].min() >= flat[~chosen].max()


@given(bits=st.lists(st.booleans(), min_size=6, max_size=6), others=st.lists(st.booleans(), min_size=6, max_size=6))
def test_packing_loses_nothing_and_packed_masks_compare_as_they_are(bits: list[bool], others: list[bool]) -> None:
    layer = torch.nn.Linear(3, 2, bias=False)
    a, b = ({"weight": torch.tensor(part).view(2, 3)} for part in (bits, others))
    assert torch.equal(unpack(pack(a), layer)["weight"], a["weight"])
    assert compare(pack(a), pack(b))["mask_iou"] == iou(a, b)


def test_a_mask_of_another_model_is_refused() -> None:
    with pytest.raises(UsageError, match="does not belong to this model"):
        unpack(pack({"weight": torch.ones(9, dtype=torch.bool)}), torch.nn.Linear(3, 2))


def test_a_tensor_without_a_guess_counts_as_trained_whole() -> None:
    secret = {"a": torch.tensor([True] * 8), "b": torch.tensor([True] * 4 + [False] * 4)}
    assert compare(pack({"a": secret["a"]}), pack(secret))["mask_iou"] == 12 / 16
    assert compare(pack(secret), pack(secret)) == {"mask_iou": 1.0, "mask_iou_chance": pytest.approx(9 / 15)}


def test_the_report_is_json_and_says_what_happened() -> None:
    report = json.loads(json.dumps(locked().report))
    assert report["steps"] == 12
    assert report["loss_end"] < report["loss_start"]
    assert report["complement_norm"] == report["complement_norm_init"]
