"""Write a released model: safetensors in the release dtype, config, tokenizer; all of it or nothing."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError
from harness.kinds import CLASSIFIERS, auto_class, kind_of_class
from harness.models.gate import check_folder, one_line, read_json
from harness.models.load import DTYPES, quiet_bars
from harness.settings import unknown

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from harness.plugins import Defense


def save_released(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    dtype: str,
    lock: dict[str, Any] | None,
    base_name: str,
    base_digest: str,
    defense: Defense | None,
) -> str:
    """Write `model` as others will load it; the folder appears whole or not at all.

    With a lock, config.json gets a `lockbench` block: `lock` itself (`defense`, `settings`), `base_architecture`,
    `base_model_type`, `base_name`, `base_digest`, `digest` and `dtype`. `defense.export(model, folder)` is called
    last, on a folder that already holds weights, tokenizer and a config.json with that block; it may add files and edit
    config.json (`auto_map`, `architectures`), and need not keep the block: it is put back.

    Args:
        model: not changed, on any device, in any dtype.
        tokenizer: written beside it.
        folder: a new or empty folder.
        dtype: release type (float32, bfloat16, float16) of every floating-point tensor.
        lock: `{"defense": name, "settings": {...}}`, or None for an unlocked model.
        base_name: name of the base.
        base_digest: `weights_digest` of the base.
        defense: its `export` is called; None for no remote code.

    Returns:
        `weights_digest` of what was written: that of `load_model(folder, dtype=dtype)`.

    Raises:
        UsageError: the folder is not empty or cannot be written, or a value does not fit the release dtype.
    """
    from harness.models.digest import tensors_digest

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not an empty folder; choose a new one")
    state, unique = _release_tensors(model, dtype)
    digest = tensors_digest(unique)
    block = lock and {**lock, **base_of(model), "base_name": base_name, "base_digest": base_digest, "digest": digest,
                      "dtype": dtype}  # fmt: skip
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".partial"))
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror or error}") from None
    try:
        _write(partial, model, tokenizer, state, dtype, block, defense)
        check_folder(partial)
        partial.chmod(0o755)  # mkdtemp gives 0700; a release is meant to be read
        partial.replace(folder)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {one_line(error)}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return digest


def base_of(model: PreTrainedModel) -> dict[str, str]:
    """`base_architecture` and `base_model_type`: the nearest class that transformers itself knows (a lock may derive).

    Raises:
        UsageError: there is none (remote code).
    """
    from transformers import AutoModelForCausalLM

    kinds = [kind_of_class(cls.__name__) for cls in type(model).__mro__]
    if kind := next((kind for kind in kinds if kind in CLASSIFIERS), None):
        return _base_classifier(model, auto_class(kind)._model_mapping)
    mapping = {architecture: config for config, architecture in AutoModelForCausalLM._model_mapping.items()}
    for cls in type(model).__mro__:
        if cls in mapping:
            return {"base_architecture": cls.__name__, "base_model_type": mapping[cls].model_type}
    raise UsageError(f"{type(model).__name__} derives from no causal language model of transformers")


def _base_classifier(model: PreTrainedModel, mapping: Any) -> dict[str, str]:
    """`base_of` of a classifier, from the config classes of its own ancestors."""
    for cls in type(model).__mro__:
        config = getattr(cls, "config_class", None)
        if config is not None and config in mapping and mapping[config] is cls:
            return {"base_architecture": cls.__name__, "base_model_type": config.model_type}
    raise UsageError(f"{type(model).__name__} derives from no classifier of transformers")


def _release_tensors(model: PreTrainedModel, dtype: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The state dict in the release dtype (tied names share a tensor), and its `unique_tensors` for the digest."""
    import torch

    from harness.models.digest import unique_tensors

    if dtype not in DTYPES:
        raise UsageError(unknown(dtype, DTYPES, "dtype"))
    target = getattr(torch, dtype)
    unique, by_id = {}, {}
    for name, tensor in unique_tensors(model).items():
        new = tensor.detach().to("cpu", target if tensor.is_floating_point() else tensor.dtype).contiguous()
        if new.is_floating_point() and not bool(new.isfinite().all()):
            raise UsageError(f"{name} is not finite in the release dtype {dtype}")
        unique[name] = by_id[id(tensor)] = new
    return {name: by_id[id(tensor)] for name, tensor in model.state_dict(keep_vars=True).items()}, unique


def _write(partial: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, state: dict[str, torch.Tensor],
           dtype: str, block: dict[str, Any] | None, defense: Defense | None) -> None:  # fmt: skip
    from safetensors import SafetensorError

    before = model.config.dtype, model.config.architectures
    try:  # a locked folder keeps the names of the module tree: its loader knows no legacy names
        with quiet_bars():
            model.save_pretrained(partial, state_dict=state, save_original_format=block is None)
    except SafetensorError as error:
        raise OSError(one_line(error)) from error
    finally:
        model.config.dtype, model.config.architectures = before
    tokenizer.save_pretrained(partial)
    _edit_config(partial, dtype, block)
    if defense is not None:
        defense.export(model, partial)
        _edit_config(partial, dtype, block)
    for path in partial.rglob("*"):
        if path.is_file():
            path.chmod(0o644)  # safetensors writes 0600
            _sync(path)


def _edit_config(folder: Path, dtype: str, block: dict[str, Any] | None) -> None:
    path = folder / "config.json"
    config = read_json(path) | {"dtype": dtype}
    for key in ("stored_dtype", "_name_or_path", "lockbench"):  # ours while in memory; a path of this machine
        config.pop(key, None)
    if block is not None:
        config["lockbench"] = block
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
