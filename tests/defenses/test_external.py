"""Checkpoints that others released: taken as they are, attacked like any lock, the lock's bill null with a reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from defenses.external import External, ExternalSettings
from harness.cli.main import main
from harness.errors import UsageError
from harness.models.digest import weights_digest
from harness.models.load import load_model
from harness.models.save import save_released
from harness.numbers.labels import labels
from harness.records.record_files import read_record
from harness.testing import byte_tokenizer, lock_context, random_llama, released

SHORT = ["--limit=20", "--set=utility.perplexity_tokens=1500", "--set=replicates=1", "--set=attack.max_steps=4",
         "--set=attack.eval_points=1", "--set=attack.block_size=64", "--set=attack.per_device_train_batch_size=2",
         "--set=task.max_items=20", "--set=task.train_bytes=60000", "-q"]  # fmt: skip


def write(folder: Path, model: Any) -> Path:
    """A checkpoint as anyone releases it."""
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write(tmp_path / "base", random_llama())


@pytest.fixture
def peer(tmp_path: Path) -> Path:
    """The base, each weight off by a little: a lock of another group."""
    model = random_llama()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.01)
    return write(tmp_path / "peer", model)


@pytest.fixture
def reparameterised(tmp_path: Path) -> Path:
    """A folder of `harness lock`, by a lock that changes the module tree."""
    from defenses.specdef_reparam import SpecDefReparam, SpecDefReparamSettings

    defense = SpecDefReparam(SpecDefReparamSettings(k=4, count=3, alpha=4.0, heldout_tokens=256))
    before, folder = released(random_llama()), tmp_path / "reparameterised"
    locked = defense.lock(released(random_llama()), lock_context(tmp_path))
    save_released(locked.model, before.tokenizer, folder, dtype="float32", base_name="b", base_digest=before.digest,
                  defense=defense, lock={"defense": "specdef_reparam",
                                         "settings": defense.settings.model_dump(mode="json")})  # fmt: skip
    return folder


def test_a_peers_folder_goes_from_the_command_line_to_the_board(
    base: Path, peer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results"
    command = [
        "run",
        "--model",
        str(base),
        "--defense",
        "external",
        f"--set=defense.path={peer}",
        "--set=defense.label=TAR",
        "--attack",
        "full",
        "--out",
        str(out),
        "--cache",
        str(tmp_path / "c"),
        *SHORT,
    ]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "what the locking cost is not known" in " ".join(said.split())
    record = read_record(next((out / "cells").iterdir()))
    assert record is not None
    assert (record.status, record.cost.lock) == ("complete", None)
    assert record.cost.lock_reason == External.unbilled
    assert record.provenance.weights.locked == load_model(str(peer)).digest != record.provenance.weights.base
    assert record.fidelity.kl is not None
    assert record.utility.locked is not None
    assert record.utility.locked.tasks.keys() == {"minimal_pairs"}
    assert record.cost.attack is not None
    assert main(["leaderboard", str(out), "--no-cache"]) == 0
    assert "TAR" in capsys.readouterr().out
    assert main(["verify", str(out), "--cache", str(tmp_path / "c")]) == 0


def importing(checkpoint: object, base: Path, tmp_path: Path, *words: str) -> list[str]:
    return ["import", str(checkpoint), "--model", str(base), "-o", str(tmp_path / "peer.yaml"), "--cache",
            str(tmp_path / "c"), "-q", *words]  # fmt: skip


def test_import_writes_the_spec_that_attacks_it(
    base: Path, peer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()  # what writing models says
    assert main(importing(peer, base, tmp_path, "--label", "TAR", "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["digest"] == load_model(str(peer)).digest != found["base_digest"]
    assert 0 < found["kl"] < 1
    assert 0 < found["top1_agreement"] <= 1
    assert main(["run", "--config", str(tmp_path / "peer.yaml"), "--attack", "full", "--dry-run"]) == 0
    command = ["run", "--model", str(base), "--defense", "external", f"--set=defense.path={peer}",
               "--set=defense.label=TAR", "--attack", "full", "--dry-run"]  # fmt: skip
    by_config = capsys.readouterr().out
    assert main(command) == 0
    assert capsys.readouterr().out == by_config  # the same cell, by either way
    assert "TAR" in by_config


def test_import_tells_a_folder_of_harness_lock(
    base: Path, reparameterised: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(importing(reparameterised, base, tmp_path)) == 0
    said = capsys.readouterr().out
    assert "written by harness lock (specdef_reparam)" in said
    assert f"harness run --config {tmp_path / 'peer.yaml'} --attack standard" in said


@pytest.mark.parametrize(("checkpoint", "words", "reason"), [
    ("base", [], "it is not locked"),
    ("wide", [], "300 tokens for 260"),
    ("nowhere", [], "no such folder"),
    ("peer", ["--revision", "main"], "defense.revision='main'"),
    ("peer", ["--device", "tpu"], "tpu"),
])  # fmt: skip
def test_import_refuses_in_one_line_and_writes_nothing(
    base: Path, peer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], checkpoint: str, words: list[str],
    reason: str,
) -> None:  # fmt: skip
    write(tmp_path / "wide", random_llama(vocab_size=300))
    capsys.readouterr()  # what writing models says
    assert main(importing(tmp_path / checkpoint, base, tmp_path, *words)) == 2
    said = capsys.readouterr().err
    assert reason in said
    assert said.startswith("harness import: ")
    assert said.count("\n") == 1
    assert not (tmp_path / "peer.yaml").exists()
    (tmp_path / "peer.yaml").write_text("mine")
    assert main(importing(peer, base, tmp_path)) == 2
    assert (tmp_path / "peer.yaml").read_text() == "mine"


def test_the_spec_names_the_content_and_another_content_is_refused(base: Path, peer: Path) -> None:
    settings = ExternalSettings.parse({"path": str(peer)}, "defense")
    assert settings.lock is None
    assert ExternalSettings.parse(settings.model_dump(mode="json"), "defense") == settings
    shutil.copyfile(base / "model.safetensors", peer / "model.safetensors")
    assert ExternalSettings.parse({"path": str(peer)}, "defense").digest != settings.digest
    with pytest.raises(UsageError, match="is not the checkpoint that the spec names"):
        External(settings).lock(released(random_llama()), lock_context())


def test_a_folder_of_harness_lock_is_rebuilt_and_disclosed(reparameterised: Path, tmp_path: Path) -> None:
    settings = ExternalSettings.parse({"path": str(reparameterised)}, "defense")
    assert settings.lock is not None
    assert settings.lock["defense"] == "specdef_reparam"
    defense, first = External(settings), load_model(str(reparameterised))
    locked = defense.lock(released(random_llama()), lock_context())
    digest = save_released(locked.model, first.tokenizer, tmp_path / "again", dtype=locked.dtype or "", base_name="b",
                           base_digest="0", defense=defense,
                           lock={"defense": "external", "settings": settings.model_dump(mode="json")})  # fmt: skip
    shutil.rmtree(reparameterised)  # what was released is whole without it
    again = load_model(str(tmp_path / "again"))
    assert again.digest == digest == first.digest == weights_digest(first.model)
    told = defense.disclosed(again.lock)
    assert told is not None
    assert (told["defense"], told["settings"]["k"]) == ("specdef_reparam", 4)


def test_what_is_no_locked_version_of_the_base_is_refused(peer: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    wide = write(tmp_path / "wide", random_llama(vocab_size=300))
    other = shutil.copytree(peer, tmp_path / "other")
    text = json.loads((other / "tokenizer.json").read_text())
    vocabulary = text["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (other / "tokenizer.json").write_text(json.dumps(text))
    assert AutoTokenizer.from_pretrained(other).encode("a") != byte_tokenizer().encode("a")
    for folder, reason in ((wide, "300 tokens for 260"), (other, "another tokenizer")):
        defense = External(ExternalSettings.parse({"path": str(folder)}, "defense"))
        with pytest.raises(UsageError, match=f"is no locked version of case: it has {reason}"):
            defense.lock(released(random_llama()), lock_context())


@pytest.mark.parametrize(("settings", "reason"), [
    ({}, "defense.path is missing: The locked checkpoint"),
    ({"path": "nowhere/model"}, "no such folder; a hub id needs its commit too"),
    ({"path": "org/model", "revision": "main"}, "defense.revision='main'"),
])  # fmt: skip
def test_unusable_settings_are_one_line(settings: dict[str, str], reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        ExternalSettings.parse(settings, "defense")
    assert "\n" not in str(caught.value)


def test_a_broken_folder_is_refused_before_anything_runs(peer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (peer / "model.safetensors").write_bytes(b"<html>")
    assert main(["run", "--defense", "external", f"--set=defense.path={peer}", "--dry-run"]) == 2
    assert str(peer / "model.safetensors") in capsys.readouterr().err


def test_a_hub_id_that_is_not_in_the_hubs_cache_says_so() -> None:
    settings = ExternalSettings.parse({"path": "org/model", "revision": "0" * 40}, "defense")
    with pytest.raises(UsageError, match="HARNESS_ONLINE=1"):
        External(settings).lock(released(random_llama()), lock_context())


def test_tables_call_it_by_its_label() -> None:
    choices = [{"name": "external", "path": "a", "label": "TAR"}, {"name": "external", "path": "b", "label": ""},
               {"name": "external", "path": "c", "label": ""}]  # fmt: skip
    assert list(labels(choices).values()) == ["TAR", "external (path=b)", "external (path=c)"]
