"""Locks in a row: settings under their names, one folder that loads again, and clear refusals."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import registry
from harness.cache import Cache
from harness.cell import run_cell
from harness.composition import compose
from harness.errors import UsageError
from harness.layers import layers
from harness.models.digest import weights_digest
from harness.models.load import load_model
from harness.plugins import Defense, LockContext, Locked, Released
from harness.progress import Progress
from harness.settings import Settings
from harness.spec import resolve
from harness.workshop import Workshop

IDS = torch.arange(20).view(2, 10)
BOTH = "dlr+specdef_reparam"
QUICK = ["defense.dlr.depth=3", "defense.dlr.module_steps=2", "defense.dlr.polish_steps=1",
         "defense.dlr.self_generated=0", "defense.dlr.block_size=32", "defense.specdef_reparam.count=4",
         "defense.specdef_reparam.k=4", "defense.specdef_reparam.heldout_tokens=512"]  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A random two-layer Llama as a local folder, stored in bfloat16."""
    from harness.testing import byte_tokenizer, random_llama

    random_llama().to(torch.bfloat16).save_pretrained(tmp_path / "random")
    byte_tokenizer().save_pretrained(tmp_path / "random")
    return str(tmp_path / "random")


def spec_of(model: str, defense: str = BOTH, assignments: list[str] = QUICK, **changes: Any) -> Any:
    return resolve(layers(None, {}, {"model": model, "defense": defense, **changes}, assignments))


def workshop(tmp_path: Path) -> Workshop:
    return Workshop(cache=Cache(tmp_path / "cache"), data_dir=None, progress=Progress(quiet=True))


def test_settings_of_the_parts_have_their_names() -> None:
    spec = resolve({"defense": BOTH})
    assert list(spec.defense) == ["name", "dlr", "specdef_reparam"]
    assert spec.defense["specdef_reparam"]["k"] == 25
    changed = spec_of("tiny", assignments=["defense.dlr.depth=16", "defense.dlr.polish_steps=9",
                                           "defense.specdef_reparam.layers=[up_proj]"])  # fmt: skip
    assert (changed.defense["dlr"]["depth"], changed.defense["dlr"]["polish_steps"]) == (16, 9)
    assert changed.defense["specdef_reparam"]["layers"] == ["up_proj"]
    assert resolve(changed.model_dump(mode="json")) == changed
    ids = {spec.id, changed.id, resolve({"defense": "specdef_reparam+dlr"}).id, resolve({"defense": "dlr"}).id}
    assert len(ids) == 4


@pytest.mark.parametrize(("defense", "assignment", "message"), [
    ("dlr+nonsense", None, "unknown defense 'nonsense'.*Allowed: dlr, external, none"),
    ("dlr+", None, "unknown defense ''"),
    ("dlr+dlr", None, "names a part twice"),
    ("dlr+none", "defense.depth=3", "unknown setting of defense 'depth'. Allowed: dlr, none"),
    ("dlr+none", "defense.dlr.dept=3", "unknown setting of defense.dlr 'dept'. Did you mean 'depth'"),
    ("dlr+none", "defense.dlr.depth=0", "defense.dlr.depth=0"),
])  # fmt: skip
def test_what_is_refused(defense: str, assignment: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        spec_of("tiny", defense, [assignment] if assignment else [])
    assert BOTH not in registry.defenses().names()
    with pytest.raises(UsageError, match=r"unknown attack 'full\+lora'"):
        registry.attacks().get("full+lora")


def test_both_locks_are_there_and_the_folder_loads_again(
    model: str, tmp_path: Path, remote_code: None
) -> None:
    from transformers import AutoModelForCausalLM

    for defense, kind in ((BOTH, "SpecDefDLRLlamaForCausalLM"), ("specdef_reparam+dlr", "DLRSpecDefLlamaForCausalLM")):
        spec, shop = spec_of(model, defense), workshop(tmp_path)
        lock = shop.lock(spec, shop.base(spec))
        assert set(lock.report) == {"dlr", "specdef_reparam"}
        assert lock.bill.steps == 3
        back = shop.locked(spec, lock)
        assert (back.digest, back.model.config.stored_dtype) == (lock.digest, "float32")  # not the base's bfloat16
        assert back.lock is not None
        assert (back.lock["defense"], back.lock["base_model_type"]) == (defense, "llama")
        names = [type(module).__name__ for module in back.model.modules()]
        assert names.count("DLRNet") == 2
        assert any(name.endswith(".compensation") for name, _ in back.model.named_modules())
        assert type(back.model).__name__ == kind
        theirs = AutoModelForCausalLM.from_pretrained(lock.folder / "model", trust_remote_code=True).eval()
        assert type(theirs).__name__ == kind
        assert torch.equal(theirs(IDS).logits, back.model(IDS).logits)
        card = (lock.folder / "model" / "README.md").read_text()
        assert "2605.10777" in card
        assert "2602.18868" in card
        assert card.count("\n---\n") == 1
        assert shop.lock(spec, shop.base(spec)).seconds_saved


def test_a_cell_with_a_composition_is_recorded(model: str, tmp_path: Path) -> None:
    spec = spec_of(model, "none+specdef_reparam", [
        "defense.specdef_reparam.count=2", "defense.specdef_reparam.heldout_tokens=512", "replicates=1",
        "utility.limit=4", "utility.perplexity_tokens=600", "attack.max_steps=2", "attack.eval_points=0",
        "attack.block_size=32", "attack.per_device_train_batch_size=2", "task.max_items=4", "task.train_bytes=20000",
    ], attack="full")  # fmt: skip
    record = run_cell(spec, out=tmp_path / "out", workshop=workshop(tmp_path))
    assert record.status == "complete", record.status_reason
    assert record.spec["defense"]["specdef_reparam"]["count"] == 2  # type: ignore[index,call-overload]
    assert record.fidelity.kl is not None
    assert record.fidelity.kl < 1e-3
    assert record.model.locked_parameters > record.model.parameters  # type: ignore[operator]


class StampSettings(Settings):
    """Of the lock below."""

    secret: bool = True
    """Whether it has one."""


class Stamp(Defense):
    """Notes what it gets, and has a secret."""

    Settings = StampSettings

    def lock(self, base: Released, context: LockContext) -> Locked:
        next(base.model.parameters()).data.add_(1)
        report = {"seed": context.seed, "name": base.name, "digest": base.digest, "folder": context.folder.name}
        return Locked(model=base.model, secret={"mask": torch.ones(1)} if self.settings.secret else None, report=report)

    def export(self, locked: Any, folder: Path) -> None:
        (folder / "README.md").write_text("---\na: b\n---\n\n# card\n")


def test_each_part_has_its_own_seed_and_folder_and_sees_what_was_locked_before(
    tiny_llama: Released, tmp_path: Path
) -> None:
    from harness.meters.meter import Meter

    kind = compose({"one": Stamp, "two": Stamp})
    context = LockContext(seed=5, device="cpu", folder=tmp_path, meter=Meter(), corpus=lambda split: [])
    with pytest.raises(UsageError, match=r"one\+two: two secrets have a tensor 'mask'"):
        kind(kind.Settings()).lock(tiny_llama, context)
    base = dataclasses.replace(tiny_llama, digest=weights_digest(tiny_llama.model))
    defense = kind(kind.Settings.parse({"two": {"secret": False}}, "defense"))
    locked = defense.lock(base, context)
    assert set(locked.secret or {}) == {"mask"}
    assert locked.dtype is None
    one, two = locked.report["one"], locked.report["two"]
    assert one["seed"] != two["seed"]
    assert (one["folder"], two["folder"]) == ("one", "two")
    assert (one["name"], two["name"]) == ("tiny_llama", "tiny_llama locked by one")
    assert one["digest"] == base.digest != two["digest"]
    json.dumps(locked.report)
    defense.export(locked.model, tmp_path)
    assert (tmp_path / "README.md").read_text() == "---\na: b\n---\n\n# card\n\n\n# card\n"


def test_a_locked_folder_with_an_unknown_part_is_refused(model: str, tmp_path: Path) -> None:
    shop = workshop(tmp_path)
    spec = spec_of(model, "none+specdef_reparam", ["defense.specdef_reparam.heldout_tokens=512"])
    folder = shop.lock(spec, shop.base(spec)).folder / "model"
    config = json.loads((folder / "config.json").read_text())
    config["lockbench"]["defense"] = "gone+specdef_reparam"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match=r"unknown defense 'gone'"):
        load_model(str(folder))


@pytest.mark.parametrize("defense", ["pmp+specdef", "dlr+pmp"])
def test_a_lock_that_pretrains_is_no_part_of_several(defense: str) -> None:
    """What it is compared with is a control of its own, and not the base."""
    with pytest.raises(UsageError, match="pmp pretrains a model"):
        registry.defenses().get(defense)
