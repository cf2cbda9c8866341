"""Load a locked folder without remote code: the base architecture, the lock's rebuild, then the tensors, strictly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub.errors import StrictDataclassError

from harness.errors import UsageError
from harness.kinds import auto_class, kind_of_class
from harness.models.gate import TensorInfo, check_kinds, one_line
from harness.plugins import Defense

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_NOT_CONFIG = ("model_type", "architectures", "auto_map", "lockbench", "dtype", "torch_dtype", "transformers_version")
BUILD_ERRORS = (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, ImportError,
                 ArithmeticError, AssertionError, StrictDataclassError)  # fmt: skip
"""What transformers raises for a folder it cannot make sense of; anything else is a bug and shows as one."""

DefenseNamed = Callable[[str, dict[str, Any]], Defense]
Headers = dict[Path, dict[str, TensorInfo]]


def lock_block(config: dict[str, Any], folder: Path) -> dict[str, Any] | None:
    """The `lockbench` block of a config.json; None when the model is not locked.

    Raises:
        UsageError: there is one, but it lacks what rebuilding needs.
    """
    lock = config.get("lockbench")
    if lock is None:
        return None
    needed = {"defense": str, "settings": dict, "base_architecture": str, "base_model_type": str}
    if not isinstance(lock, dict) or not all(isinstance(lock.get(key), kind) for key, kind in needed.items()):
        raise UsageError(f"{folder / 'config.json'}: its lockbench block needs {', '.join(needed)}")
    return lock


def load_locked(folder: Path, config: dict[str, Any], lock: dict[str, Any], headers: Headers, dtype: torch.dtype,
                defense_named: DefenseNamed) -> PreTrainedModel:  # fmt: skip
    """Build the base architecture, let the defense rebuild it, and load every tensor strictly.

    Raises:
        UsageError: config.json, its lockbench block and the weights do not belong together.
    """
    from transformers import GenerationConfig

    defense = defense_named(lock["defense"], lock["settings"])
    try:
        model = _empty_base(config, lock, headers, dtype)
    except BUILD_ERRORS as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{folder}: its base cannot be built from config.json: {one_line(error)}") from error
    model = defense.rebuild(model)
    for tensor in model.state_dict(keep_vars=True).values():  # not model.to(dtype): rotary tables stay float32
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)
    model.tie_weights()
    check_kinds(headers, model)
    _fill(model, folder, headers)
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return model


def _empty_base(config: dict[str, Any], lock: dict[str, Any], headers: Headers, dtype: torch.dtype) -> PreTrainedModel:
    """The base architecture with memory but no values: every tensor is filled, or refused, afterwards."""
    import torch
    from transformers import AutoConfig
    from transformers.initialization import no_init_weights

    auto = auto_class(kind_of_class(lock["base_architecture"]))
    rest = {key: value for key, value in config.items() if key not in _NOT_CONFIG}
    built = AutoConfig.for_model(lock["base_model_type"], **rest)
    with torch.device("meta"):  # sizes are checked before memory is taken
        skeleton = auto.from_config(built, dtype=dtype)
    if type(skeleton).__name__ != lock["base_architecture"]:
        raise UsageError(f"base_architecture={lock['base_architecture']!r}: model type {lock['base_model_type']!r} is "
                         f"{type(skeleton).__name__}")  # fmt: skip
    check_kinds(headers, skeleton)
    with no_init_weights():
        model: PreTrainedModel = auto.from_config(built, dtype=dtype)
    return model


def _fill(model: PreTrainedModel, folder: Path, headers: Headers) -> None:
    """Copy every tensor of the files into the model, one at a time; both sides must be used up."""
    import torch
    from safetensors import safe_open

    targets = model.state_dict(keep_vars=True)
    filled: set[int] = set()
    for path, header in headers.items():
        extra = [name for name in header if name not in targets or id(targets[name]) in filled]
        if extra:
            wrong_keys(folder, "unexpected", extra)
        with safe_open(path, framework="pt") as file, torch.no_grad():
            for name in header:
                targets[name].copy_(file.get_tensor(name))
                filled.add(id(targets[name]))
    missing = [name for name, tensor in targets.items() if id(tensor) not in filled]
    if missing:
        wrong_keys(folder, "missing", missing)


def wrong_keys(folder: Path, kind: str, names: Any) -> None:
    """Raise the UsageError for `missing` or `unexpected` tensors."""
    shown = sorted(str(name) for name in names)
    raise UsageError(f"{folder}: {len(shown)} {kind} tensor{'s' * (len(shown) > 1)}, for example {shown[0]!r}; "
                     "config.json and the weights do not belong together")  # fmt: skip
