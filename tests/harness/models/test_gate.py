"""The gate: damaged, disguised and dangerous checkpoints are refused in one line; none crashes, none passes as good."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from safetensors.torch import save_file

from harness.errors import UsageError
from harness.models.gate import check_file, check_finite, check_folder, check_kinds
from harness.models.load import load_model
from harness.plugins import Released

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@cache
def good() -> bytes:
    torch.manual_seed(0)
    tensors = {"a.weight": torch.randn(3, 4), "b": torch.randn(5).bfloat16(), "c": torch.arange(3),
               "empty": torch.zeros(0, 2), "flag": torch.tensor(True)}  # fmt: skip
    return save_bytes(tensors, metadata={"format": "pt"})


class Holder(torch.nn.Module):
    """A model whose state dict is what `good` holds."""

    def __init__(self) -> None:
        super().__init__()
        for name, tensor in load_bytes(good()).items():
            self.register_buffer(name.replace(".", "_"), tensor)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        return load_bytes(good())


def refused(error: UsageError) -> None:
    """A refusal is one line."""
    assert str(error)
    assert "\n" not in str(error)


def gate(path: Path, data: bytes) -> dict[str, torch.Tensor] | None:
    """What the gate lets through, as the strict loader would take it; None when refused in one line."""
    path.write_bytes(data)
    try:
        header = check_file(path)
        check_kinds({path: header}, Holder())
        if header.keys() != Holder().state_dict().keys():
            raise UsageError("missing or unexpected tensors")
    except UsageError as error:
        return refused(error)
    return load_bytes(data)  # whatever passes must be readable by the real library


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_good_file_passes_with_its_header(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(good())
    header = check_file(path)
    assert {name: (info.dtype, info.shape) for name, info in header.items()} == {
        "a.weight": ("F32", (3, 4)), "b": ("BF16", (5,)), "c": ("I64", (3,)), "empty": ("F32", (0, 2)),
        "flag": ("BOOL", ())}  # fmt: skip


@given(st.integers(0, len(good()) - 1))
@QUICK
def test_truncated_anywhere(tmp_path: Path, length: int) -> None:
    assert gate(tmp_path / "x.safetensors", good()[:length]) is None


@given(st.binary(min_size=1, max_size=40))
@QUICK
def test_trailing_bytes(tmp_path: Path, tail: bytes) -> None:
    assert gate(tmp_path / "x.safetensors", good() + tail) is None


@given(st.data())
@settings(QUICK, max_examples=600)
def test_a_changed_byte_in_the_header(tmp_path: Path, data: st.DataObject) -> None:
    """One byte of the header or its length changed to any other: refused, or the tensors are the same."""
    raw = bytearray(good())
    position = data.draw(st.integers(0, 8 + struct.unpack("<Q", raw[:8])[0] - 1))
    raw[position] = data.draw(st.integers(0, 255).filter(lambda value: value != raw[position]))
    passed = gate(tmp_path / "x.safetensors", bytes(raw))
    assert passed is None or same(passed, load_bytes(good()))


@given(st.binary(max_size=400))
@example(b"")
@example(b"\0" * 8)
@example(struct.pack("<Q", 2) + b"{}")
@example(struct.pack("<Q", 2**63) + b"{}")
@example(struct.pack("<Q", 20_000) + b'{"a":' * 4_000)
@example(struct.pack("<Q", 5_008) + b'{"a":' + b"9" * 5_002 + b"}")
@QUICK
def test_garbage(tmp_path: Path, data: bytes) -> None:
    assert gate(tmp_path / "x.safetensors", data) is None


ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(ENTRY)


def deeper(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    entry = {"dtype": st.sampled_from(["F32", "Q4"]) | inner, "shape": inner, "data_offsets": inner}
    return st.lists(inner, max_size=3) | st.fixed_dictionaries(entry)


@given(st.dictionaries(st.text(max_size=5), st.recursive(LEAF, deeper, max_leaves=6)))
@QUICK
def test_any_json_header(tmp_path: Path, header: dict[str, Any]) -> None:
    """Whatever the header says, the gate refuses it, or the real library reads it too."""
    raw = json.dumps(header).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + b"\0" * 4)
    try:
        infos = check_file(path)
    except UsageError as error:
        refused(error)
        return
    assert {name: tuple(tensor.shape) for name, tensor in load_bytes(path.read_bytes()).items()} == {
        name: info.shape for name, info in infos.items()}  # fmt: skip


def test_header_lengths_that_look_like_other_formats(tmp_path: Path) -> None:
    """0x80 starts a pickle, 0x3C a web page: as the low byte of a header's length they are neither."""
    for target in (0x180, 0x13C, 0x4B50):
        raw = json.dumps({"a": ENTRY}).encode().ljust(target)
        path = tmp_path / f"{target}.safetensors"
        path.write_bytes(struct.pack("<Q", target) + raw + b"\0" * 4)
        assert list(check_file(path)) == ["a"]


@pytest.mark.parametrize(("content", "words"), [
    (b"<!DOCTYPE html><html><body>Sign in</body></html>", "web page"),
    (b"\n  <html>404</html>", "web page"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "Git LFS pointer"),
    (b"\x80\x02}q\x00.", "pickle"),
    (b"PK\x03\x04archive/data.pkl", "pickle"),
    (b"GGUF\x03\0\0\0" + b"\0" * 40, "GGUF"),
    (b"", "not safetensors"),
    (struct.pack("<Q", 60) + b'{"a":1}', "truncated or corrupt"),
    (struct.pack("<Q", 36) + b'{"a":{"dtype":"F32","shape":[1]   }}', "dtype, shape and data_offsets"),
    (struct.pack("<Q", 15) + b'{"a":1,  "a":1}', "twice"),
    (struct.pack("<Q", 20) + b'{"__metadata__":[1]}', "map of strings"),
])  # fmt: skip
def test_files_that_are_something_else_are_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=words):
        check_file(path)


def header_of(**entries: dict[str, Any]) -> bytes:
    raw = json.dumps(entries).encode()
    return struct.pack("<Q", len(raw)) + raw + b"\0" * 8


@pytest.mark.parametrize(("data", "words"), [
    (header_of(a=ENTRY), "describes 4 bytes"),
    (header_of(a=ENTRY, b=ENTRY), "expected 4"),
    (header_of(a=ENTRY | {"data_offsets": [4, 8]}), "starts at byte 4"),
    (header_of(a=ENTRY | {"dtype": "F4"}), "unknown dtype 'F4'"),
    (header_of(a=ENTRY | {"shape": [2**62, 0], "data_offsets": [0, 0]}), "impossible shape"),
    (header_of(a=ENTRY | {"shape": [-1]}), "impossible shape"),
    (header_of(a=ENTRY | {"shape": [True]}), "impossible shape"),
    (header_of(a=ENTRY | {"shape": [3]}), "spans 4 bytes"),
])  # fmt: skip
def test_headers_that_lie(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=words):
        check_file(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text("{}")
    (made / "model.safetensors").write_bytes(good())
    return made


def shard(folder: Path) -> dict[str, str]:
    """Split into two files; returns the weight map."""
    state = load_bytes(good())
    names = {name: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, name in enumerate(state)}
    for file in set(names.values()):
        save_file({name: tensor for name, tensor in state.items() if names[name] == file}, folder / file)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    return names


def test_shards(folder: Path) -> None:
    names = shard(folder)
    found = check_folder(folder)
    assert {name: path.name for path, header in found.items() for name in header} == names


@pytest.mark.parametrize(("change", "words"), [
    (lambda names: names | {"a.weight": "../elsewhere.safetensors"}, "not a safetensors file of this folder"),
    (lambda names: names | {"a.weight": "/etc/passwd"}, "not a safetensors file of this folder"),
    (lambda names: names | {"a.weight": "pytorch_model.bin"}, "not a safetensors file of this folder"),
    (lambda names: names | {"a.weight": "absent.safetensors"}, "does not exist"),
    (lambda names: names | {"ghost": names["b"]}, "disagrees .* 'ghost'"),
    (lambda names: {name: file for name, file in names.items() if name != "b"}, "disagrees .* 'b'"),
    (lambda names: {}, "no weight_map"),
    (lambda names: [1], "no weight_map"),
    (lambda names: {"b": 3}, "not a safetensors file"),
])  # fmt: skip
def test_bad_indexes(folder: Path, change: Callable[[Any], Any], words: str) -> None:
    names = shard(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": change(names)}))
    with pytest.raises(UsageError, match=words):
        check_folder(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.pkl", "last.ckpt"])
def test_pickles_are_refused_by_name(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(UsageError, match=f"{name} is a pickle, which can run code"):
        check_folder(folder)


def test_a_pickle_beside_safetensors_is_left_alone(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    assert list(check_folder(folder)) == [folder / "model.safetensors"]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_links_that_leave_the_folder(folder: Path, name: str) -> None:
    outside = folder.parent / "outside"
    outside.write_bytes(good())
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(outside)
    with pytest.raises(UsageError, match="link that leaves"):
        check_folder(folder)
    if name == "model.safetensors":  # as in the hub's cache, whose snapshots link to its blobs
        assert list(check_folder(folder, links_within=folder.parent)) == [folder / name]


def test_links_inside_the_folder_and_linked_folders(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "blob")
    (folder / "model.safetensors").symlink_to("blob")
    (folder.parent / "alias").symlink_to(folder)
    assert len(check_folder(folder.parent / "alias")) == 1


def test_not_regular_files(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")
    with pytest.raises(UsageError, match="not a regular file"):
        check_folder(folder)


@pytest.mark.parametrize(("config", "words"), [
    (None, "does not exist"), ("{", "not JSON"), ("[]", "not a JSON object"), ("[" * 100_000, "not JSON"),
    ('{"vocab_size": 1e30}', "vocab_size"), ('{"hidden_size": -4}', "hidden_size"),
    ('{"text_config": {"num_hidden_layers": 99}}', "num_hidden_layers=99"),
    ('{"num_labels": 100000000}', "not a number of labels"), ('{"a": 1, "a": 2}', "'a' is given twice"),
    ('{"_attn_implementation": "stranger/kernel"}', "code from elsewhere"), ('{"use_kernels": true}', "code from"),
    ('{"text_config": {"experts_implementation": {"": "stranger/kernel@main"}}}', "code from elsewhere"),
])  # fmt: skip
def test_bad_configs(folder: Path, config: str | None, words: str) -> None:
    (folder / "config.json").unlink()
    if config is not None:
        (folder / "config.json").write_text(config)
    with pytest.raises(UsageError, match=words):
        check_folder(folder)


def test_harmless_configs_pass(folder: Path) -> None:
    for config in ({"attn_implementation": "eager", "num_labels": 2}, {"time_step_limit": [0, float("inf")]}):
        (folder / "config.json").write_text(json.dumps({**config, "use_kernels": False, "model_max_length": 10**30}))
        check_folder(folder)


def test_an_adapter_leads_elsewhere(folder: Path) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/elsewhere"}))
    with pytest.raises(UsageError, match="holds an adapter"):
        check_folder(folder)


def test_a_padding_token_beyond_the_vocabulary_is_refused_by_one_line(tiny_llama: Released, tmp_path: Path) -> None:
    from harness.models.save import save_released

    save_released(tiny_llama.model, tiny_llama.tokenizer, tmp_path / "m", dtype="float32", lock=None, base_name="",
                  base_digest="", defense=None)  # fmt: skip
    path = tmp_path / "m" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pad_token_id": 10**9}))
    with pytest.raises(UsageError, match="Padding_idx") as caught:
        load_model(str(tmp_path / "m"), known={})
    refused(caught.value)


def test_missing_folder_and_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a folder"):
        check_folder(tmp_path / "nothing")
    with pytest.raises(UsageError, match="does not exist"):
        check_file(tmp_path / "nothing.safetensors")


def test_non_finite_weights_are_named() -> None:
    model = torch.nn.Linear(2, 2)
    check_finite(model, "here")
    model.weight.data[1, 0] = float("nan")
    with pytest.raises(UsageError, match="here: weight holds NaN"):
        check_finite(model, "here")


@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_load_model_on_damaged_weights(tiny_llama: Released, tmp_path: Path, data: st.DataObject) -> None:
    """The whole way: cut, or one header byte changed, a folder is refused or its weights are unchanged."""
    from harness.models.save import save_released

    folder = tmp_path / "m"
    if not folder.exists():
        save_released(tiny_llama.model, tiny_llama.tokenizer, folder, dtype="float32", lock=None, base_name="",
                      base_digest="", defense=None)  # fmt: skip
        (tmp_path / "good").write_bytes((folder / "model.safetensors").read_bytes())
    raw = bytearray((tmp_path / "good").read_bytes())
    end = 8 + struct.unpack("<Q", raw[:8])[0]
    position = data.draw(st.integers(0, end - 1))
    if data.draw(st.booleans()):
        raw = raw[:position]
    else:
        raw[position] ^= data.draw(st.integers(1, 255))
    (folder / "model.safetensors").write_bytes(raw)
    try:
        loaded = load_model(str(folder), known={})
    except UsageError as error:
        refused(error)
        return
    assert same(loaded.model.state_dict(), tiny_llama.model.state_dict())
