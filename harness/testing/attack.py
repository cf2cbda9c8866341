"""What every attack must hold to: it proves that it attacked, keeps its budget, and pays for what it does."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from harness.plugins import AttackContext, Attacked
from harness.testing.cases import attack_context
from harness.testing.models import locked_llama, random_gpt2, random_llama, released
from harness.testing.plugin import PluginConformance

SMALL = {"max_steps": 12, "learning_rate": 5e-3, "per_device_train_batch_size": 4, "block_size": 32}
"""Training knobs of these tests, for attacks whose settings have them."""


class AttackConformance(PluginConformance):
    """Subclass it, set `kind`; the rest has defaults (design invariants 2, 3, 4, 8 and 10).

    An attack whose settings are training knobs runs 12 steps of 4 x 32 tokens unless `settings` says otherwise.
    """

    models: ClassVar[Mapping[str, Callable[[], Any]]] = {
        "llama": random_llama, "locked_llama": locked_llama, "gpt2": random_gpt2}  # fmt: skip
    """What it is tried on, by name: functions that give a fresh model."""
    main: ClassVar[str] = "locked_llama"
    """The model of the tests that need one only."""
    loss_falls_by: ClassVar[float] = 0.02
    """Nats a token, from the first loss to the mean of the last three."""
    tolerance: ClassVar[float] = 1e-3
    """Nats a token that losses may differ by where only the order of sums differs."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """A test with an argument `model` runs on each of `models`."""
        if "model" in metafunc.fixturenames:
            metafunc.parametrize("model", list(self.models))

    @classmethod
    def build(cls, **changes: Any) -> Any:
        """The attack, small, with `settings`, some changed."""
        known = {key: value for key, value in SMALL.items() if key in cls.kind.Settings.model_fields}
        return super().build(**{**known, **cls.settings, **changes})

    @classmethod
    def attacked(cls, model: str) -> tuple[Attacked, AttackContext]:
        """The attack on a fresh model, run once for all tests that only look at it."""
        this: Any = cls  # mypy does not take a class for hashable
        return _attacked(this, model)

    def test_it_proves_that_it_attacked(self, model: str) -> None:
        training = self.attacked(model)[0].training
        assert training.steps == getattr(self.build().settings, "max_steps", training.steps) > 0
        assert len(training.trained) > 0
        assert not training.unmoved
        assert not training.missing_gradients
        assert not training.nonfinite_gradients
        assert sum(training.losses[-3:]) / 3 < training.losses[0] - self.loss_falls_by

    def test_the_attacked_model_is_plain_and_works(self, model: str) -> None:
        import torch

        found: Any = self.attacked(model)[0].model
        assert not found.training
        assert {parameter.dtype for parameter in found.parameters()} == {torch.float32}
        assert not any("lora" in key or "base_layer" in key for key in found.state_dict())
        ids = torch.tensor([[5, 6, 7]], device=found.device)
        with torch.no_grad():
            assert found(input_ids=ids).logits.isfinite().all()
            assert found.generate(ids, max_new_tokens=4, min_new_tokens=4, do_sample=False).shape == (1, 7)

    def test_exactly_the_targets_changed(self, model: str) -> None:
        import torch

        result, _ = self.attacked(model)
        assert len(set(result.targets)) == len(result.targets) > 0
        before, after = self.models[model]().state_dict(), result.model.state_dict()
        after = {key: value for key, value in after.items() if key in before}
        changed = {key for key, value in after.items() if not torch.equal(value.cpu(), before[key])}
        for target in result.targets:  # what undoing a lock took out is in no state dict any more
            present = any(key.startswith(target) for key in after)
            assert not present or any(key.startswith(target) for key in changed), f"{target} did not change"
        reached = {key for key in changed if key.startswith(tuple(result.targets))}
        tied = {"lm_head.weight"} if result.model.config.tie_word_embeddings else set()
        assert changed - reached <= tied

    def test_what_it_spent_is_on_its_bill(self, model: str) -> None:
        result, where = self.attacked(model)
        bill, total = where.meter.bills["attack"], where.meter.total
        assert bill.steps == result.training.steps
        assert min(bill.forward_flops, bill.tokens, bill.trainable_parameters, bill.peak_device_bytes or 0) > 0
        assert total.flops == sum(part.flops for part in where.meter.bills.values())

    def test_the_budget_of_steps_is_a_limit(self) -> None:
        where = attack_context(budget="steps=4")
        result = self.build().attack(released(self.models[self.main]()), where)
        undo = where.meter.bills["undo"].steps if "undo" in where.meter.bills else 0
        assert where.meter.total.steps == 4
        assert result.training.steps == 4 - undo >= 2
        assert result.training.stopped_by == "steps"

    def test_no_model_comes_out_of_an_impossible_budget(self) -> None:
        from harness.errors import OutOfMemory, OverBudget

        with pytest.raises(OverBudget):
            self.build().attack(released(self.models[self.main]()), attack_context(budget="tokens=100"))
        with pytest.raises(OutOfMemory):
            self.build().attack(released(self.models[self.main]()), attack_context(budget="memory=100KiB"))

    def test_the_seed_decides_everything(self) -> None:
        from harness.models.digest import weights_digest

        again, other = (self.build().attack(released(self.models[self.main]()), attack_context(seed=seed)).model
                        for seed in (0, 1))  # fmt: skip
        first = weights_digest(self.attacked(self.main)[0].model)
        assert weights_digest(again) == first
        assert weights_digest(other) != first

    def test_a_frozen_half_precision_release_is_attacked_all_the_same(self) -> None:
        import torch

        target = released(self.models[self.main]())
        target.model.to(torch.bfloat16).requires_grad_(False).train()
        result = self.build(**self.steps(4)).attack(target, attack_context())
        assert not result.training.unmoved
        assert {parameter.dtype for parameter in result.model.parameters()} == {torch.float32}

    def test_the_trajectory_is_scored_by_the_probe_and_paid_by_nobody(self, tmp_path: Path) -> None:
        self.needs("eval_points", "max_steps")
        seen: list[bool] = []

        def probe(model: Any) -> float:
            seen.append(model.training)
            return float(len(seen))

        where = attack_context(tmp_path, probe=probe)
        result = self.build(max_steps=4, eval_points=2).attack(released(self.models[self.main]()), where)
        assert [point.step for point in result.training.trajectory] == [0, 2, 4]
        assert seen == [False] * 3
        assert result.training.trajectory[-1].tokens == where.meter.total.tokens

    @pytest.mark.parametrize("changes", [
        {"gradient_checkpointing": True}, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
    ], ids=["checkpointing", "accumulation"])  # fmt: skip
    def test_what_must_not_matter_does_not(self, changes: dict[str, Any]) -> None:
        self.needs(*changes)
        same = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1} | self.steps(4)
        plain, other = (self.build(**same | more).attack(released(self.models[self.main]()), attack_context()).training
                        for more in ({}, changes))  # fmt: skip
        assert other.losses == pytest.approx(plain.losses, abs=self.tolerance)
        assert list(other.trained) == list(plain.trained)

    def needs(self, *names: str) -> None:
        """Skip where the attack has no setting of one of these names."""
        missing = [name for name in names if name not in self.kind.Settings.model_fields]
        if missing:
            pytest.skip(f"{self.kind.__name__} has no setting {missing[0]}")

    def steps(self, number: int) -> dict[str, Any]:
        """Settings for a shorter run, where there is one."""
        return {"max_steps": number} if "max_steps" in self.kind.Settings.model_fields else {}


@functools.cache
def _attacked(cls: type[AttackConformance], model: str) -> tuple[Attacked, AttackContext]:
    where = attack_context()
    return cls.build().attack(released(cls.models[model]()), where), where
