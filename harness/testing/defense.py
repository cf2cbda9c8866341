"""What every lock must hold to: the function stays, one model however it is loaded, and training it is possible."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, ClassVar

import pytest

from harness.plugins import Defense, LockContext, Locked, Released
from harness.testing.cases import device_under_test, documents, lock_context
from harness.testing.models import random_llama, released
from harness.testing.plugin import PluginConformance


class DefenseConformance(PluginConformance):
    """Subclass it, set `kind`; the rest has defaults (design invariants 2, 4, 7 and 10)."""

    max_kl: ClassVar[float] = 0.1
    """Most KL(base, locked), nats a token; of a lock that pretrains, KL(control, locked)."""
    seeded: ClassVar[bool] = True
    """Whether another seed gives another locked model."""

    @classmethod
    def base(cls) -> Any:
        """The model to lock, fresh each time."""
        return random_llama()

    @classmethod
    def locked(cls) -> tuple[Locked, LockContext]:
        """The lock on a fresh base, run once for all tests that only look at it."""
        this: Any = cls  # mypy does not take a class for hashable
        return _locked(this, 0)

    @classmethod
    def copy(cls) -> Any:
        """The locked model, for tests that change it."""
        import copy

        return copy.deepcopy(cls.locked()[0].model)

    def test_the_function_is_preserved(self) -> None:
        import torch

        from harness.models.digest import weights_digest
        from harness.packing import tokenize
        from harness.utility.fidelity import fidelity

        base = released(self.base(), "base")
        if self.kind.pretrains:
            base = released(self.build().control(base, lock_context()).model, "control")
        found = released(self.locked()[0].model, "locked")
        tokens = tokenize(documents("heldout"), base.tokenizer)
        if weights_digest(base.model) != found.digest:  # a control changes nothing, and there is nothing to compare
            blocks = torch.from_numpy(tokens[: len(tokens) // 64 * 64].astype("int64")).reshape(-1, 64)
            assert fidelity(base, found, blocks)["kl"] <= self.max_kl

    def test_the_seed_decides_everything(self) -> None:
        from harness.models.digest import weights_digest

        first = weights_digest(self.locked()[0].model)
        again = _lock(type(self), 0)[0].model
        assert not again.training
        assert weights_digest(again) == first
        assert (weights_digest(_lock(type(self), 1)[0].model) != first) == self.seeded

    def test_a_released_folder_is_the_same_model(self, tmp_path: Path) -> None:
        import torch

        from harness.models.digest import weights_digest
        from harness.models.load import load_model

        model = self.locked()[0].model
        digest, dtype = self.release(tmp_path / "release")
        again = load_model(str(tmp_path / "release"), dtype=dtype, device=device_under_test(), defense_named=self.named)
        assert again.digest == digest
        assert again.lock is not None
        assert again.lock["settings"] == self.build().settings.model_dump(mode="json")
        assert again.model.state_dict().keys() == model.state_dict().keys()
        if dtype == "float32":
            assert digest == weights_digest(model)
            assert torch.equal(_logits(again.model), _logits(model))

    def test_plain_transformers_loads_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        if self.kind.structural and self.kind.export is Defense.export:
            pytest.skip(f"{self.kind.__name__} changes the module tree and exports no code for plain transformers")
        forget_remote_code(tmp_path / "modules", monkeypatch)
        _, dtype = self.release(tmp_path / "release")
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "release", trust_remote_code=True).eval()
        theirs = theirs.to(device_under_test())
        if dtype == "float32":
            assert torch.equal(_logits(theirs), _logits(self.locked()[0].model))

    def test_it_is_a_causal_language_model(self) -> None:
        import torch

        model = self.copy()
        assert not model.training
        assert all(parameter.requires_grad for parameter in model.parameters())
        ids = torch.arange(3, 23, device=model.device).view(2, 10)
        with torch.no_grad():
            out = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids)
        assert out.logits.shape == (2, 10, self.base().config.vocab_size)
        assert out.logits.isfinite().all()
        assert out.loss.isfinite()
        words = [model.generate(ids, max_new_tokens=4, do_sample=False, use_cache=cache) for cache in (True, False)]
        assert torch.equal(*words)
        assert model.get_input_embeddings().weight.shape[0] == model.get_output_embeddings().weight.shape[0]

    def test_gradients_flow_and_every_tensor_moves(self) -> None:
        result = self.train(self.copy(), steps=4)
        assert not result.unmoved
        assert not result.missing_gradients
        assert not result.nonfinite_gradients

    def test_checkpointing_changes_nothing_but_the_bytes(self) -> None:
        plain, saving = (self.train(self.copy(), steps=3, gradient_checkpointing=on) for on in (False, True))
        assert saving.losses == pytest.approx(plain.losses, abs=1e-5)

    def test_the_bill_is_counted_and_the_same_again(self) -> None:
        drop = {"seconds", "peak_host_bytes", "energy_joules"}
        first, again = (context.meter.total.model_dump(exclude=drop) for _, context in
                        (self.locked(), _lock(type(self), 0)))  # fmt: skip
        assert first == again
        if first["steps"]:
            assert min(first["forward_flops"], first["backward_flops"], first["tokens"]) > 0

    def test_the_report_is_json_and_the_secret_is_apart(self, tmp_path: Path) -> None:
        locked = self.locked()[0]
        json.dumps(locked.report, allow_nan=False)
        if locked.secret is not None:
            from safetensors.torch import load_file, save_file

            save_file(locked.secret, tmp_path / "secret.safetensors")
            assert load_file(tmp_path / "secret.safetensors").keys() == locked.secret.keys()

    def train(self, model: Any, steps: int, **changes: Any) -> Any:
        """Fine-tune `model` whole for some steps."""
        from harness.testing.cases import attack_context
        from harness.train_settings import TrainSettings

        settings = TrainSettings(max_steps=steps, learning_rate=1e-3, per_device_train_batch_size=4, block_size=32)
        from harness.finetune import finetune

        target, context = released(model), attack_context()
        return finetune(target.model, target.tokenizer, context, settings.model_copy(update=changes))

    def release(self, folder: Path) -> tuple[str, str]:
        """Write the locked model as `harness lock` does; its digest, and the type it is stored in."""
        from harness.models.save import save_released

        locked, defense = self.locked()[0], self.build()
        dtype = locked.dtype or "float32"
        lock = {"defense": "under_test", "settings": defense.settings.model_dump(mode="json")}
        base: Released = released(self.base(), "base")
        digest = save_released(locked.model, base.tokenizer, folder, dtype=dtype, lock=lock, base_name="base",
                               base_digest=base.digest, defense=defense)  # fmt: skip
        return digest, dtype

    def named(self, name: str, settings: dict[str, Any]) -> Defense:
        """The lock that rebuilds a released folder."""
        assert name == "under_test"
        rebuilding: Defense = self.kind(self.kind.Settings.parse(settings, "defense"))
        return rebuilding


def forget_remote_code(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place of this test's own for the remote code that transformers imports; what others imported is forgotten."""
    import sys

    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(place))
    monkeypatch.syspath_prepend(place)
    for name in [name for name in sys.modules if name.partition(".")[0] == "transformers_modules"]:
        monkeypatch.delitem(sys.modules, name)


def _lock(cls: type[DefenseConformance], seed: int) -> tuple[Locked, LockContext]:
    context = lock_context(seed=seed)
    with context.meter.stage("lock"):
        return cls.build().lock(released(cls.base(), "base"), context), context


@functools.cache
def _locked(cls: type[DefenseConformance], seed: int) -> tuple[Locked, LockContext]:
    return _lock(cls, seed)


def _logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        ids = torch.arange(3, 43, device=model.device).view(2, 20)
        return model(input_ids=ids).logits.cpu()
