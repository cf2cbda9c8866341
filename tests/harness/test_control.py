"""A lock that pretrains is compared with its control, and its secret stays with its owner."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.cache import Cache
from harness.cell import run_cell
from harness.numbers.robustness import Cell, robustness
from harness.progress import Progress
from harness.records.record import Record
from harness.spec import Spec, resolve
from harness.workshop import Workshop

PMP: dict[str, Any] = {"name": "pmp", "max_steps": 12, "discovery_steps": 5, "per_device_train_batch_size": 2,
                       "block_size": 64, "variant": "authors_code", "radius": 0.02, "project_every": 4}  # fmt: skip


ATTACK = {"max_steps": 6, "per_device_train_batch_size": 2, "block_size": 64, "eval_points": 2}


def spec_of(model: str, attack: str, defense: dict[str, Any] = PMP) -> Spec:
    return resolve({
        "model": {"name": model}, "defense": defense, "attack": {"name": attack, **ATTACK}, "replicates": 1,
        "utility": {"limit": 20, "perplexity_tokens": 1500},
        "task": {"name": "python_source", "max_items": 20, "train_bytes": 60_000}})  # fmt: skip


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(cache=Cache(tmp_path_factory.mktemp("cache")), data_dir=None, progress=Progress(quiet=True))


@pytest.fixture(scope="module")
def cells(model: str, workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One cell an attack, by its name, and the folder they are in."""
    out = tmp_path_factory.mktemp("out")
    return {"out": out} | {name: run_cell(spec_of(model, name), out=out, workshop=workshop)
                           for name in ("full", "authorised", "undo_pmp")}  # fmt: skip


def test_the_control_takes_the_bases_place_and_is_named_and_billed(
    model: str, cells: dict[str, Any], workshop: Workshop
) -> None:
    record: Record = cells["full"]
    spec = spec_of(model, "full")
    assert record.status == "complete", record.status_reason
    given = workshop.base(spec)
    control = workshop.lock(spec, given, control=True)
    assert record.provenance.weights.base == control.digest != given.digest
    assert record.provenance.weights.locked not in (control.digest, given.digest)
    assert record.model.control is not None
    assert record.model.control.endswith("control of pmp")
    assert record.cost.control is not None
    assert record.cost.lock is not None
    assert record.cost.control.tokens == 12 * 2 * 64
    assert record.cost.lock.tokens == (12 + 5) * 2 * 64
    assert record.utility.base is not None
    assert not [flag for flag in record.errors if flag.flag != "loss_not_falling"]

    from harness.records.recheck import recheck
    from leaderboards.load import load_results
    from leaderboards.verify import verify

    assert verify(cells["out"]) == []
    mismatches, notes = recheck(load_results(cells["out"]).cells, data_dir=None, cache=workshop.cache.root)
    assert mismatches == []
    assert any(note.startswith("provenance.weights.base: rechecked") and "not in this cache" not in note
               for note in notes)  # fmt: skip


def test_the_guessed_mask_is_scored_in_the_record(cells: dict[str, Any]) -> None:
    guess = cells["undo_pmp"].secret_guess
    assert guess["mask_iou"] >= 0.9 > guess["mask_iou_chance"]
    assert cells["authorised"].secret_guess == {}


def test_knowing_the_secret_never_ranks(cells: dict[str, Any]) -> None:
    assert cells["authorised"].status == "complete", cells["authorised"].status_reason
    assert cells["authorised"].provenance.knowledge == "secret"

    from leaderboards.load import load_results

    result = robustness([Cell(cell.record, cell.items) for cell in load_results(cells["out"]).cells])
    assert "knows the lock's secret" in {cell.attack: cell.reason for cell in result.excluded}["authorised"]
    assert sorted(outcome.label for outcome in result.attacks) == ["full", "undo_pmp"]


def test_the_secret_is_not_in_the_release(model: str, workshop: Workshop) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file

    spec = spec_of(model, "full")
    lock = workshop.lock(spec, workshop.base(spec))
    secret = load_file(lock.folder / "secret.safetensors")
    folder = lock.folder / "model"
    held = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    masks = [bits.numpy().tobytes() for bits in secret.values()]
    telling = [bits for bits in masks if len(set(bits)) > 8]  # a mask of zeros or ones only may occur by chance
    assert len(telling) > 5
    assert not [bits for bits in telling if bits in held]
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        assert {str(file.get_tensor(name).dtype) for name in file.keys()} == {"torch.float32"}  # noqa: SIM118
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["lockbench"]["settings"]["rho"] == 0.5


@pytest.mark.parametrize("name", ["undo_pmp", "authorised"])
def test_only_an_attack_that_may_know_the_secret_is_given_it(
    name: str, model: str, cells: dict[str, Any], workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness import registry

    seen: list[Any] = []
    attack: Any = registry.attacks().get(name)
    real = attack.attack
    monkeypatch.setattr(attack, "attack", lambda self, released, context: (
        seen.append((released.lock is not None, context.secret is not None)), real(self, released, context))[1])
    spec = spec_of(model, name).model_copy(update={"replicates": 2})  # the second replicate is not in the cache
    assert run_cell(spec, out=tmp_path, workshop=workshop).status == "complete"
    assert seen == [(False, False), (True, name == "authorised")]


def test_without_a_pretraining_lock_there_is_no_control(model: str, workshop: Workshop, tmp_path: Path) -> None:
    spec = spec_of(model, "full", {"name": "none"})
    record = run_cell(spec, out=tmp_path, workshop=workshop)
    assert (record.model.control, record.cost.control) == (None, None)
    assert record.provenance.weights.base == workshop.base(spec).digest
