"""The lock from end to end on a random Llama: spectra grow, the function stays, and it is one model however loaded."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from defenses.specdef import SpecDef, SpecDefSettings
from defenses.specdef.diagnostics import sharpness, spectra
from defenses.specdef.lock import Pair, lock_loss
from defenses.specdef.spectrum import TopSingularValues, matrices
from harness.budget import Budget
from harness.errors import Outcome, OutOfMemory, UsageError
from harness.meters.meter import Meter
from harness.models.digest import weights_digest
from harness.models.load import load_model
from harness.models.save import save_released
from harness.plugins import LockContext, Released
from harness.testing import documents

QUICK: dict[str, Any] = {"max_steps": 40, "learning_rate": 6e-3, "alpha": 0.5, "block_size": 32,
                         "per_device_train_batch_size": 4, "warmup_ratio": 0.0}  # fmt: skip
KL = 0.15
"""Nats a token that the locked model may differ by here."""


@pytest.fixture(scope="module")
def base() -> Released:
    """A random Llama with weights large enough that they matter for what it predicts."""
    from harness.testing import byte_tokenizer, random_llama

    model = random_llama()
    with torch.no_grad():
        model.lm_head.weight.mul_(8)
        for weight in matrices(model).values():
            weight.mul_(4)
    return Released(model=model, tokenizer=byte_tokenizer(), digest=weights_digest(model), name="random_llama")


def lock(base: Released, seed: int = 0, budget: str = "", **changes: Any) -> Any:
    """A locked copy of a base, and the meter."""
    fresh = Released(model=copy.deepcopy(base.model), tokenizer=base.tokenizer, digest=base.digest, name=base.name)
    meter = Meter(Budget.from_text(budget))
    context = LockContext(seed=seed, device="cpu", folder=Path(), meter=meter, corpus=documents)
    with meter.stage("lock"):
        return SpecDef(SpecDefSettings(**(QUICK | changes))).lock(fresh, context), meter


@pytest.fixture(scope="module")
def done(base: Released) -> Any:
    """One lock for all tests that only look at it."""
    return lock(base)


def exact_top(model: Any, k: int = 2) -> dict[str, torch.Tensor]:
    return {name: torch.linalg.svdvals(weight.detach())[:k] for name, weight in matrices(model).items()}


def kl_by_hand(base: Released, model: Any) -> float:
    """KL(base, model), nats a token, on held-out text."""
    ids = torch.tensor([base.tokenizer.encode(text)[:64] for text in documents("heldout")])
    with torch.no_grad():
        p, q = (side(ids).logits.log_softmax(-1) for side in (base.model, model))
    return float((p.exp() * (p - q)).sum(-1).mean())


def test_every_spectrum_is_inflated_and_the_function_is_kept(base: Released, done: Any) -> None:
    locked, meter = done
    before, after = exact_top(base.model), exact_top(locked.model)
    assert all(bool((after[name] > 1.3 * values).all()) for name, values in before.items())
    assert locked.report["heldout"]["kl"] < KL
    assert kl_by_hand(base, locked.model) < KL
    assert meter.bills["lock"].steps == QUICK["max_steps"]
    assert meter.bills["lock"].tokens >= QUICK["max_steps"] * 4 * 32


def test_without_the_spectral_term_nothing_is_inflated(base: Released) -> None:
    locked, _ = lock(base, alpha=1.0, max_steps=20, optim="sgd")  # AdamW would blow rounding up to whole steps
    before, after = exact_top(base.model), exact_top(locked.model)
    assert all(bool((after[name] < 1.1 * values).all()) for name, values in before.items())


def test_without_the_retain_loss_the_function_is_lost(base: Released, done: Any) -> None:
    locked, _ = lock(base, alpha=0.0)
    assert locked.report["heldout"]["kl"] > 3 * done[0].report["heldout"]["kl"]
    assert locked.report["heldout"]["kl"] > 2 * KL


def test_the_report_says_what_the_weights_are(base: Released, done: Any) -> None:
    report = json.loads(json.dumps(done[0].report, allow_nan=False))
    for when, model in (("before", base.model), ("after", done[0].model)):
        rows = report[when]["matrices"]
        assert list(rows) == list(matrices(model))
        for name, values in exact_top(model).items():
            assert rows[name]["top"] == pytest.approx(values.tolist(), rel=1e-4)
        everything = torch.cat(list(exact_top(model).values()))
        assert report[when]["mean_top"] == pytest.approx(float(everything.mean()), rel=1e-4)
        weight = matrices(model)["model.layers.0.mlp.up_proj.weight"]
        row = rows["model.layers.0.mlp.up_proj.weight"]
        assert row["condition"] == pytest.approx(float(torch.linalg.cond(weight)), rel=1e-3)
        rms = (weight.square().sum() / 32).sqrt()
        assert row["over_rms"] == pytest.approx(float(torch.linalg.matrix_norm(weight, 2) / rms), rel=1e-4)
        assert report[when]["sharpness"] > 0


def test_sharpness_is_the_largest_eigenvalue_of_the_hessian_and_leaves_the_weights_alone() -> None:
    class Quadratic(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.unused = (torch.nn.Parameter(torch.ones(4)) for _ in range(2))

        def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
            loss = (torch.tensor([1.0, 2.0, 3.0, 30.0]) * self.w.square()).sum() / 2
            return type("Output", (), {"loss": loss})

    model = Quadratic()
    assert sharpness(model, lambda: model(torch.zeros(1, 1)).loss, seed=0) == pytest.approx(30, rel=1e-2)
    assert torch.equal(model.w.detach(), torch.ones(4))


def test_spectra_of_singular_and_zero_matrices_are_still_json() -> None:
    found = spectra({"zero": torch.zeros(3, 2), "one": torch.ones(3, 2)}, 2)
    assert found["matrices"]["zero"] == {"top": [0, 0], "over_rms": None, "condition": None}
    assert found["matrices"]["one"]["condition"] is None


@pytest.mark.parametrize("retain", ["task", "kl", "both"])
def test_the_loss_is_algorithm_1(base: Released, retain: Any) -> None:
    model, other = base.model, copy.deepcopy(base.model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.05 * torch.sin(torch.arange(parameter.numel()).float()).view_as(parameter))
    top = TopSingularValues(matrices(other), 2)
    top.settle()
    ids = torch.arange(60).view(2, 30)
    found = lock_loss(Pair(base=model, model=other), top, SpecDefSettings(alpha=0.7, retain=retain))(
        other, {"input_ids": ids, "labels": ids})  # fmt: skip
    logits = other(ids).logits
    p, q = model(ids).logits.log_softmax(-1), logits.log_softmax(-1)
    kl = (p.exp() * (p - q)).sum(-1).mean()
    task = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    kept = {"task": task, "kl": kl, "both": task + kl}[retain]
    assert float(kl) > 1e-3
    assert float(found) == pytest.approx(float(
        0.7 * kept - 0.3 * torch.cat(list(exact_top(other).values())).mean()), rel=1e-4)  # fmt: skip


def test_divergence_and_lack_of_memory_are_outcomes(base: Released) -> None:
    with pytest.raises(Outcome, match="the locked model diverged"):
        lock(base, alpha=0.0, learning_rate=1e25, max_steps=4)
    with pytest.raises(OutOfMemory):
        lock(base, budget="memory=100KiB")


def test_impossible_settings_are_refused_in_one_line() -> None:
    for bad, message in (({"alpha": 1.5}, "defense.alpha=1.5"), ({"k": 0}, "defense.k=0"),
                         ({"retain": "all"}, "defense.retain='all'")):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            SpecDefSettings.parse(bad, "defense")


def test_the_export_loads_as_what_it_is(base: Released, done: Any, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    locked, _ = done
    defense = SpecDef(SpecDefSettings(**QUICK))
    folder, ids = tmp_path / "export", torch.arange(20).view(2, 10)
    digest = save_released(locked.model, base.tokenizer, folder, dtype="float32", base_name=base.name,
                           base_digest=base.digest, defense=defense,
                           lock={"defense": "specdef",
                                 "settings": defense.settings.model_dump(mode="json")})  # fmt: skip
    ours = load_model(str(folder), defense_named=lambda name, settings: SpecDef(SpecDefSettings(**settings)))
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    assert ours.digest == digest == weights_digest(locked.model) == weights_digest(theirs)
    assert torch.equal(ours.model(ids).logits, locked.model(ids).logits)
    card = (folder / "README.md").read_text()
    for words in ("random_llama", base.digest, '"alpha": 0.5', "Known breaks", "perplexity", "undo_specdef"):
        assert words in card
