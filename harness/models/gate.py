"""The gate every checkpoint passes before a byte of it is mapped: safetensors only, checked by hand, in plain words.

Formats and rules: the safetensors format (8-byte little-endian header length, JSON header, contiguous tensors).
Every refusal is one `UsageError` line that names the file and the reason.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError
from harness.models.config_gate import check_config
from harness.records.strict_json import loads

if TYPE_CHECKING:
    import torch

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
DTYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I64": 8, "I32": 4, "I16": 2, "I8": 1,
          "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1}  # fmt: skip
"""Bytes an element by the format's dtype name."""
MAX_HEADER = 100 << 20  # the reference reader's own limit
MAX_DIM = 1 << 40
_WRONG_FILES = ((b"<", "a web page (HTML or XML) saved under a weights' name"),
                (b"version https://git-lfs", "a Git LFS pointer, not the weights"),
                (b"\x80", "a pickle under another name"), (b"PK", "a zip archive (a PyTorch pickle)"),
                (b"GGUF", "a GGUF file"))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """One entry of a safetensors header."""

    dtype: str
    shape: tuple[int, ...]


def check_folder(folder: Path, *, links_within: Path | None = None) -> dict[Path, dict[str, TensorInfo]]:
    """Check a model folder: config, index, every weights file's header and size.

    Args:
        folder: the model's folder.
        links_within: symlinks may point anywhere below it (a hub cache); default: below `folder`.

    Returns:
        The headers by weights file, in index order.

    Raises:
        UsageError: anything is missing, out of place, not safetensors, or not what it says it is.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder" + _pickle_reason([folder.name]))
    root = (links_within or folder).resolve()
    for path in folder.iterdir():
        if not path.resolve().is_relative_to(root):
            raise UsageError(f"{path} is a link that leaves the model's folder")
    config = read_json(folder / "config.json")
    headers = {path: check_file(path) for path in _weight_files(folder)}
    tensors = [info for header in headers.values() for info in header.values()]
    if len(tensors) != len({name for header in headers.values() for name in header}):
        raise UsageError(f"{folder}: a tensor is in two weights files")
    _check_index(folder, headers)
    check_config(folder, config, [info.shape for info in tensors])
    return headers


def check_file(path: Path) -> dict[str, TensorInfo]:
    """Check one safetensors file's size and header; tensor bytes are not read.

    Raises:
        UsageError: see the module.
    """
    if not path.is_file():
        raise UsageError(f"{path} is not a regular file" if path.exists() else f"{path} does not exist")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(64)
        length = struct.unpack("<Q", start[:8])[0] if size > 8 else 0
        if length > MAX_HEADER or start[8:9] != b"{":
            raise UsageError(f"{path} is {_what(start)}")
        if length > size - 8:
            raise UsageError(f"{path} is truncated or corrupt: a header of {length} bytes in a file of {size}")
        file.seek(8)
        raw = file.read(length)
    try:
        return _parse(raw, size - 8 - length)
    except ValueError as error:
        raise UsageError(f"{path} is truncated or corrupt: {one_line(error)}") from None


def check_kinds(headers: dict[Path, dict[str, TensorInfo]], model: torch.nn.Module) -> None:
    """Refuse a file whose tensor has another shape, or integers for floats, than the model's tensor of that name.

    Raises:
        UsageError: names the tensor.
    """
    wanted = model.state_dict()
    for path, header in headers.items():
        for name in header.keys() & wanted.keys():
            info, tensor = header[name], wanted[name]
            shape = tuple(tensor.shape)
            if info.shape != shape:
                raise UsageError(f"{path}: {name} has shape {list(info.shape)}, config.json asks for {list(shape)}")
            if ("F" in info.dtype) != tensor.is_floating_point():
                raise UsageError(f"{path}: {name} is {info.dtype}, the model needs {str(tensor.dtype)[6:]}")


def check_finite(model: torch.nn.Module, source: str) -> None:
    """Refuse weights that are not finite.

    Raises:
        UsageError: names the first such tensor.
    """
    from harness.models.digest import unique_tensors

    for name, tensor in unique_tensors(model).items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise UsageError(f"{source}: {name} holds NaN or infinite values (as {str(tensor.dtype)[6:]})")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of at most 16 MiB.

    Raises:
        UsageError: it is missing, too large, not JSON or not an object.
    """
    if not path.is_file():
        raise UsageError(f"{path} does not exist")
    if path.stat().st_size > 16 << 20:
        raise UsageError(f"{path} is larger than 16 MiB")
    try:
        value = loads(path.read_bytes(), constants=True)
    except ValueError as error:
        raise UsageError(f"{path} is not JSON, or not plain: {one_line(error)}") from None
    if not isinstance(value, dict):
        raise UsageError(f"{path} is not a JSON object")
    return value


def _weight_files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    if not (folder / INDEX).exists():
        names = sorted(path.name for path in folder.iterdir())
        raise UsageError(f"{folder} has no {WEIGHTS}" + _pickle_reason(names))
    shards = read_json(folder / INDEX).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise UsageError(f"{folder / INDEX} has no weight_map")
    for name in shards.values():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise UsageError(f"{folder / INDEX} names {name!r}, which is not a safetensors file of this folder")
    return [folder / name for name in sorted(set(shards.values()))]


def _check_index(folder: Path, headers: dict[Path, dict[str, TensorInfo]]) -> None:
    if folder / WEIGHTS in headers:
        return
    index = read_json(folder / INDEX)["weight_map"]
    found = {name: path.name for path, header in headers.items() for name in header}
    if index != found:
        wrong = sorted(name for name in index.keys() | found.keys() if index.get(name) != found.get(name))
        raise UsageError(f"{folder / INDEX} disagrees with the weights files about {wrong[0]!r} ({len(wrong)} in all)")


def _pickle_reason(names: list[str]) -> str:
    pickles = [name for name in names if name.endswith(PICKLES)]
    if not pickles:
        return ""
    return f": {pickles[0]} is a pickle, which can run code when loaded; convert it to safetensors"


def _parse(raw: bytes, data: int) -> dict[str, TensorInfo]:
    """The header's entries; `data` is the number of bytes after it. ValueError says what is wrong."""
    header = loads(raw)
    if not isinstance(header, dict):
        raise ValueError("the header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("__metadata__ is not a map of strings")
    if not header:
        raise ValueError("it holds no tensor")
    spans, infos = [], {}
    for name, entry in header.items():
        infos[name], span = _entry(name, entry)
        spans.append((span, name))
    end = 0
    for (first, last), name in sorted(spans):
        if first != end:
            raise ValueError(f"{name} starts at byte {first}, expected {end}")
        end = last
    if end != data:
        raise ValueError(f"the header describes {end} bytes of tensors, the file has {data}")
    return infos


def _entry(name: str, entry: Any) -> tuple[TensorInfo, tuple[int, int]]:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{name} has the unknown dtype {dtype!r}")
    if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise ValueError(f"{name} has an impossible shape or data_offsets")
    given, needed = offsets[1] - offsets[0], math.prod(shape) * DTYPES[dtype]
    if given != needed:
        raise ValueError(f"{name} spans {given} bytes, its shape {shape} of {dtype} needs {needed}")
    return TensorInfo(dtype=dtype, shape=tuple(shape)), (offsets[0], offsets[1])


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= 16 and all(type(n) is int and 0 <= n <= MAX_DIM for n in value)


def _what(start: bytes) -> str:
    """What a file without a plausible safetensors header is (only then: a valid header length may look like magic)."""
    for magic, what in _WRONG_FILES:
        if start.lstrip().startswith(magic):
            return what
    return "not safetensors, truncated or corrupt: its first bytes are no header"


def one_line(error: BaseException) -> str:
    """The first 300 characters of an error's message, on one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
