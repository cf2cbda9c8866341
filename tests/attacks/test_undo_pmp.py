"""The owner's ceiling and the attempts to get there without the secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from attack_cases import build, context, released
from pmp_cases import ROOT, locked, mask_of, release

from attacks.authorised import Authorised
from defenses.pmp.mask import compare, unpack
from harness.errors import Unavailable
from harness.models.digest import weights_digest
from harness.plugins import AttackContext, Knowledge, Released


def target(**settings: Any) -> Released:
    return release(locked(**settings), **settings)


def owner(folder: Path, **settings: Any) -> AttackContext:
    """A context that holds the secret."""
    import dataclasses

    from safetensors.torch import save_file

    save_file(locked(**settings).secret or {}, folder / "secret.safetensors")
    return dataclasses.replace(context(), secret=folder / "secret.safetensors")


def quality(result: Any, **settings: Any) -> tuple[float, float]:
    """Intersection over union of the guess, and of chance."""
    found = compare(result.guess, locked(**settings).secret or {})
    return found["mask_iou"], found["mask_iou_chance"]


@pytest.mark.parametrize("optim", ["adamw_torch", "muon"])
def test_the_owner_moves_the_ticket_and_nothing_of_the_complement(optim: str, tmp_path: Path) -> None:
    before = dict(target().model.named_parameters())
    result = build("authorised", optim=optim, weight_decay=0.2).attack(target(), owner(tmp_path))
    mask = mask_of(locked())
    for name, parameter in result.model.named_parameters():
        moved = parameter != before[name]
        ticket = mask.get(name, torch.ones_like(moved))
        assert not moved[~ticket].any(), name
        assert not ticket.any() or moved[ticket].float().mean() > 0.9, name
    assert not result.training.unmoved
    assert sum(result.training.losses[-3:]) / 3 < result.training.losses[0] - 0.02


def test_the_owner_needs_the_secret() -> None:
    assert Authorised.knowledge is Knowledge.SECRET
    with pytest.raises(Unavailable, match="needs the secret of the lock, and pmp gave none"):
        build("authorised").attack(target(), context())


@pytest.mark.parametrize("name", ["authorised", "undo_pmp"])
def test_without_a_lock_it_is_full_fine_tuning(name: str) -> None:
    plain = build("full").attack(released("llama"), context()).model
    where = context()
    result = build(name).attack(released("llama"), where)
    assert weights_digest(result.model) == weights_digest(plain)
    assert result.guess is None
    assert set(where.meter.bills) == {"attack"}


def test_magnitude_reads_the_mask_that_the_authors_code_leaves() -> None:
    result = build("undo_pmp").attack(target(variant="authors_code"), context())
    assert result.report["method"] == "magnitude"
    found, chance = quality(result, variant="authors_code")
    assert found >= 0.95 > 0.5 > chance


def test_a_guessed_seed_gives_the_mask_away() -> None:
    result = build("undo_pmp", guessed_seeds=[7, ROOT]).attack(target(), context())
    assert (result.report["method"], result.report["seed"]) == ("init_match", ROOT)
    assert quality(result)[0] >= 0.98


def test_a_wrong_seed_does_not() -> None:
    with pytest.raises(Unavailable, match=r"none of guessed_seeds=\[7, 8\]"):
        build("undo_pmp", method="init_match", guessed_seeds=[7, 8]).attack(target(), context())
    result = build("undo_pmp", guessed_seeds=[]).attack(target(), context())
    assert result.report["method"] == "distribution"


def test_weights_that_moved_far_enough_stand_out_from_initial_ones() -> None:
    """Seed unknown, complement at its initial values: a learning rate that moves weights by a few initial widths."""
    far = {"learning_rate": 3e-2, "max_steps": 40}
    result = build("undo_pmp", method="distribution", max_steps=1).attack(target(**far), context())
    found, chance = quality(result, **far)
    assert found > chance + 0.3


def test_the_attackers_own_ticket_has_the_share_asked_for_and_is_paid() -> None:
    for rho, wanted in ((None, 0.5), (0.2, 0.2)):
        where = context()
        result = build("undo_pmp", method="gradient", complement="keep", rho=rho, max_steps=1).attack(target(), where)
        assert result.report["ticket"] == round(wanted * result.report["covered"])
        undo = where.meter.bills["undo"]
        assert undo.tokens == 8 * 4 * 32
        assert undo.flops > 2 * undo.tokens * result.report["covered"]


@pytest.mark.parametrize("complement", ["keep", "reinit", "pretrain"])
def test_what_happens_to_the_complement(complement: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import attacks.ticket

    prepared: dict[str, torch.Tensor] = {}
    real = attacks.ticket.finetune_ticket

    def finetune_ticket(model: Any, *rest: Any) -> Any:
        prepared.update({name: parameter.detach().clone() for name, parameter in model.named_parameters()})
        return real(model, *rest)

    monkeypatch.setattr(attacks.ticket, "finetune_ticket", finetune_ticket)
    where = context()
    result = build("undo_pmp", complement=complement, undo_steps=3, max_steps=1).attack(target(), where)
    before, mask = dict(target().model.named_parameters()), unpack(result.guess or {}, result.model)
    for name, parameter in prepared.items():
        moved = parameter != before[name]
        ticket = mask.get(name, torch.ones_like(moved))
        assert not moved[ticket].any(), name
        if "proj" in name and not ticket.all():
            assert bool(moved[~ticket].any()) == (complement != "keep"), name
    assert where.meter.bills["undo"].steps == (3 if complement == "pretrain" else 0)


@pytest.mark.parametrize("trained", ["ticket", "all"])
def test_what_the_fine_tuning_trains(trained: str) -> None:
    result = build("undo_pmp", complement="keep", trained=trained).attack(target(), context())
    before, mask = dict(target().model.named_parameters()), unpack(result.guess or {}, result.model)
    named = dict(result.model.named_parameters())
    rest = torch.cat([(named[name] != before[name])[~ticket] for name, ticket in mask.items()])
    assert bool(rest.any()) == (trained == "all")


def test_half_of_the_budget_is_left_to_the_fine_tuning() -> None:
    where = context(budget="steps=10")
    result = build("undo_pmp", complement="pretrain", undo_steps=100, max_steps=100).attack(target(), where)
    assert where.meter.bills["undo"].steps == result.training.steps == 5


def test_the_attack_does_not_look_at_the_secret(tmp_path: Path) -> None:
    import dataclasses

    poisoned = dataclasses.replace(context(), secret=tmp_path / "not there")
    result = build("undo_pmp").attack(target(), poisoned)
    assert "mask_iou" not in result.report
