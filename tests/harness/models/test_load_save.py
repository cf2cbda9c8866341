"""Saving and loading: what comes back is what was released, or one line of refusal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from family_cases import build
from torch import nn

from harness.errors import UsageError
from harness.models.digest import weights_digest
from harness.models.families import find_mlps, set_module
from harness.models.known import KnownModel
from harness.models.load import load_model
from harness.models.save import save_released
from harness.plugins import Defense, LockContext, Locked, Released
from harness.settings import Settings

IDS = torch.arange(32).reshape(2, 16)
BASE: dict[str, Any] = {"lock": None, "base_name": "b", "base_digest": "0" * 64, "defense": None}


class WideSettings(Settings):
    """Of the lock below."""

    width: int = 8
    """Rank."""


class Wide(nn.Module):
    """x B A, of some rank, with a table that is not saved."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(hidden, width), nn.Linear(width, hidden)
        self.register_buffer("table", torch.full((1,), 2.0), persistent=False)
        self.register_buffer("scale", torch.full((1,), 0.3))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.up(self.down(hidden)) * self.table * self.scale


class WideLock(Defense):
    """Every MLP becomes two linear maps."""

    Settings: ClassVar[type[Settings]] = WideSettings
    structural: ClassVar[bool] = True
    settings: WideSettings

    def lock(self, base: Released, context: LockContext) -> Locked:
        return Locked(model=self.rebuild(base.model))

    def rebuild(self, model: Any) -> Any:
        for site in find_mlps(model):
            set_module(model, site.name, Wide(site.hidden_size, self.settings.width))
        return model

    def export(self, locked: Any, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config.pop("lockbench")
        config |= {"model_type": "wide_llama", "architectures": ["WideForCausalLM"], "auto_map": {"AutoConfig": "x.C"}}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "README.md").write_text("card")


def wide(name: str, settings: dict[str, Any]) -> Defense:
    assert name == "wide"
    return WideLock(WideSettings.parse(settings, "defense"))


LOCKED: dict[str, Any] = {"lock": {"defense": "wide", "settings": {"width": 8}}, "base_name": "tiny_llama",
                          "base_digest": "0" * 64}  # fmt: skip


@pytest.fixture
def locked_folder(tiny_llama: Released, tmp_path: Path) -> Path:
    defense = WideLock(WideSettings())
    model = defense.rebuild(tiny_llama.model)
    save_released(model, tiny_llama.tokenizer, tmp_path / "locked", dtype="float32", defense=defense, **LOCKED)
    return tmp_path / "locked"


def load(folder: Path, **options: Any) -> Released:
    return load_model(str(folder), known={}, defense_named=wide, **options)


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_round_trip_is_rounding_to_the_release_dtype(tiny_llama: Released, tmp_path: Path, dtype: str) -> None:
    before = {name: tensor.clone() for name, tensor in tiny_llama.model.state_dict().items()}
    digest = save_released(tiny_llama.model, tiny_llama.tokenizer, tmp_path / "m", dtype=dtype, **BASE)
    back = load(tmp_path / "m", dtype=dtype)
    wide_again = load(tmp_path / "m")
    target = getattr(torch, dtype)
    for name, tensor in back.model.state_dict().items():
        assert torch.equal(tensor, before[name].to(target))
        assert torch.equal(wide_again.model.state_dict()[name], before[name].to(target).float())
        assert torch.equal(tiny_llama.model.state_dict()[name], before[name])
    assert back.digest == digest == weights_digest(back.model) == load(tmp_path / "m", dtype="auto").digest
    assert back.lock is None
    assert back.model.config.stored_dtype == wide_again.model.config.stored_dtype == dtype
    assert json.loads((tmp_path / "m" / "config.json").read_text())["dtype"] == dtype
    assert not back.model.training
    assert back.tokenizer("abc")["input_ids"] == tiny_llama.tokenizer("abc")["input_ids"]
    if dtype == "float32":
        assert torch.equal(back.model(IDS).logits, tiny_llama.model(IDS).logits)


def test_saving_what_was_loaded_gives_the_same_files(tiny_llama: Released, tmp_path: Path) -> None:
    save_released(tiny_llama.model, tiny_llama.tokenizer, tmp_path / "a", dtype="bfloat16", **BASE)
    back = load(tmp_path / "a")
    save_released(back.model, back.tokenizer, tmp_path / "b", dtype="bfloat16", **BASE)
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()
    assert "stored_dtype" not in (tmp_path / "b" / "config.json").read_text()
    assert str(tmp_path) not in "".join(path.read_text() for path in (tmp_path / "b").glob("*.json"))


@pytest.mark.parametrize("kind", ["gpt2", "opt", "gpt_neox", "gemma3_text", "qwen3"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tied_and_untied_families_lock_save_and_load(
    kind: str, dtype: str, tmp_path: Path, tiny_llama: Released
) -> None:
    model, defense = build(kind), WideLock(WideSettings())
    defense.rebuild(model)
    expected = model(IDS).logits
    digest = save_released(model, tiny_llama.tokenizer, tmp_path / "m", dtype=dtype, defense=defense, **LOCKED)
    back = load(tmp_path / "m", dtype=dtype)
    assert back.digest == digest
    if dtype == "float32":
        assert digest == weights_digest(model)
        assert torch.equal(back.model(IDS).logits, expected)


def test_locked_folder_comes_back_without_remote_code(
    tiny_llama: Released, locked_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    back = load(locked_folder)
    assert capfd.readouterr() == ("", "")
    assert torch.equal(back.model(IDS).logits, tiny_llama.model(IDS).logits)
    assert back.lock is not None
    assert back.lock["defense"] == "wide"
    assert back.lock["settings"] == {"width": 8}
    assert back.lock["base_architecture"] == "LlamaForCausalLM"
    assert back.lock["base_model_type"] == "llama"
    assert back.lock["digest"] == back.digest == weights_digest(tiny_llama.model)
    assert (locked_folder / "README.md").exists()
    assert type(find_mlps(back.model)[0].module) is Wide
    half = load(locked_folder, dtype="bfloat16").model
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    assert half.model.rotary_emb.inv_freq.dtype == torch.float32
    assert torch.equal(half.model.rotary_emb.inv_freq, tiny_llama.model.model.rotary_emb.inv_freq)
    with torch.no_grad():
        assert back.model.generate(IDS, max_new_tokens=3, do_sample=False).shape == (2, 19)


def test_bfloat16_locked_logits_equal_plain_transformers(tiny_llama: Released, tmp_path: Path) -> None:
    """The loader of locked folders and `from_pretrained` build the same model (the lock here changes nothing)."""

    class Same(WideLock):
        def rebuild(self, model: Any) -> Any:
            return model

        def export(self, locked: Any, folder: Path) -> None:
            return None

    from transformers import AutoModelForCausalLM

    same = Same(WideSettings())
    save_released(tiny_llama.model, tiny_llama.tokenizer, tmp_path / "m", dtype="bfloat16", defense=same, **LOCKED)
    ours = load_model(str(tmp_path / "m"), known={}, dtype="bfloat16", defense_named=lambda name, settings: same)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.bfloat16).eval()
    assert torch.equal(ours.model(IDS).logits, plain(IDS).logits)
    assert ours.digest == weights_digest(plain)


@pytest.mark.parametrize(("changes", "words"), [
    ({"lockbench": {"defense": "wide"}}, "lockbench block needs"),
    ({"lockbench": "yes"}, "lockbench block needs"),
    ({"vocab_size": 10**12}, "vocab_size=1000000000000 does not fit"),
    ({"num_hidden_layers": 10**9}, "num_hidden_layers=1000000000 does not fit"),
    ({"hidden_size": 64}, "has shape"),
    ({"hidden_size": "big"}, "hidden_size='big'"),
    ({"num_hidden_layers": 1}, "unexpected tensors"),
    ({"num_hidden_layers": 3}, "missing tensors"),
    ({"num_attention_heads": 0}, "cannot be built"),
])  # fmt: skip
def test_config_that_does_not_fit_a_locked_folder(locked_folder: Path, changes: dict[str, Any], words: str) -> None:
    edit(locked_folder, **changes)
    with pytest.raises(UsageError, match=words) as caught:
        load(locked_folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("key", "value", "words"), [
    ("settings", {"width": 9}, "has shape"),
    ("settings", {"depth": 9}, "unknown setting of defense 'depth'"),
    ("base_architecture", "GPT2LMHeadModel", "is LlamaForCausalLM"),
    ("base_model_type", "nonsense", "nonsense"),
])  # fmt: skip
def test_lock_block_that_does_not_fit(locked_folder: Path, key: str, value: Any, words: str) -> None:
    block = json.loads((locked_folder / "config.json").read_text())["lockbench"]
    edit(locked_folder, lockbench=block | {key: value})
    with pytest.raises(UsageError, match=words):
        load(locked_folder)


def test_unknown_defense_is_named(locked_folder: Path) -> None:
    with pytest.raises(UsageError, match="wide"):
        load_model(str(locked_folder), known={})


@pytest.mark.parametrize("locked", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_weights_are_refused(tiny_llama: Released, tmp_path: Path, locked: bool, value: float) -> None:
    from safetensors.torch import load_file, save_file

    save_released(tiny_llama.model, tiny_llama.tokenizer, tmp_path / "m", dtype="float32", **BASE)
    path = tmp_path / "m" / "model.safetensors"
    state = load_file(path)
    state["model.norm.weight"][3] = value
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"model\.norm\.weight holds NaN or infinite"):
        load(tmp_path / "m")


def test_missing_tensors_are_never_made_up(tiny_llama: Released, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_released(tiny_llama.model, tiny_llama.tokenizer, tmp_path / "m", dtype="float32", **BASE)
    path = tmp_path / "m" / "model.safetensors"
    state = load_file(path)
    del state["model.norm.weight"]
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"1 missing tensor, for example 'model\.norm\.weight'"):
        load(tmp_path / "m")


def test_integers_for_floats_are_refused(tiny_llama: Released, tmp_path: Path) -> None:
    save_released(tiny_llama.model, tiny_llama.tokenizer, tmp_path / "m", dtype="float32", **BASE)
    path = tmp_path / "m" / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"dtype":"F32"', b'"dtype":"I32"', 1))
    with pytest.raises(UsageError, match="is I32, the model needs float32"):
        load(tmp_path / "m")


def test_saving_refuses_and_leaves_nothing(tiny_llama: Released, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match="not an empty folder"):
        save_released(tiny_llama.model, tiny_llama.tokenizer, tmp_path / "full", dtype="float32", **BASE)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="cannot be written"):
        save_released(tiny_llama.model, tiny_llama.tokenizer, tmp_path / "file" / "m", dtype="float32", **BASE)
    with pytest.raises(UsageError, match="unknown dtype 'int8'"):
        save_released(tiny_llama.model, tiny_llama.tokenizer, tmp_path / "m", dtype="int8", **BASE)
    tiny_llama.model.model.norm.weight.data[0] = 1e6
    with pytest.raises(UsageError, match=r"model\.norm\.weight is not finite in the release dtype float16"):
        save_released(tiny_llama.model, tiny_llama.tokenizer, tmp_path / "m", dtype="float16", **BASE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]


def test_an_export_that_fails_leaves_nothing(tiny_llama: Released, tmp_path: Path) -> None:
    class Broken(WideLock):
        def export(self, locked: Any, folder: Path) -> None:
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        save_released(tiny_llama.model, tiny_llama.tokenizer, tmp_path / "m", dtype="float32",
                      defense=Broken(WideSettings()), **LOCKED)  # fmt: skip
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "words"), [
    ("tinny", "Did you mean 'tiny'"),
    ("someone/some-model", "hub's cache"),
    ("../nowhere", "a local folder"),
    ("model.bin", "pickle"),
    ("weights.safetensors", "give a folder"),
])  # fmt: skip
def test_names_that_lead_nowhere(name: str, words: str) -> None:
    known = {"tiny": KnownModel(name="tiny", summary="", parameters=1, licence="MIT", packaged="tiny")}
    with pytest.raises(UsageError, match=words) as caught:
        load_model(name, known=known)
    assert "\n" not in str(caught.value)


def test_bad_dtype_and_device(locked_folder: Path) -> None:
    with pytest.raises(UsageError, match="dtype 'half'"):
        load(locked_folder, dtype="half")
    with pytest.raises(UsageError, match="device="):
        load(locked_folder, device="nonsense")


@pytest.mark.pack
def test_known_models_are_checked_by_hash(data_dir: Path, tmp_path: Path) -> None:
    from harness.models.known import STORIES260K

    known = {"stories260k": STORIES260K}
    released = load_model("stories260k", data_dir=data_dir, known=known)
    assert released.model.num_parameters() == STORIES260K.parameters
    assert released.name == "stories260k"
    ids = released.tokenizer("Once upon a time", return_tensors="pt")["input_ids"]
    text = released.tokenizer.decode(released.model.generate(ids, max_new_tokens=12, do_sample=False)[0])
    assert "there was a little girl" in text
    wrong = STORIES260K.model_copy(update={"sha256": {"model.safetensors": "0" * 64}})
    with pytest.raises(UsageError, match="not the published file"):
        load_model("stories260k", data_dir=data_dir, known={"stories260k": wrong})
    with pytest.raises(UsageError, match="data pack"):
        load_model("stories260k", data_dir=tmp_path, known=known)
    with pytest.raises(UsageError, match="HARNESS_DATA"):
        load_model("stories260k", known=known)


def test_a_tokenizer_without_pad_token_pads_with_eos(tiny_llama: Released, tmp_path: Path) -> None:
    tiny_llama.tokenizer.pad_token = None
    tiny_llama.model.generation_config.pad_token_id = None
    save_released(tiny_llama.model, tiny_llama.tokenizer, tmp_path / "m", dtype="float32", **BASE)
    back = load(tmp_path / "m")
    assert back.tokenizer.pad_token == back.tokenizer.eos_token == "<eos>"
    assert back.model.generation_config.pad_token_id == back.tokenizer.pad_token_id
