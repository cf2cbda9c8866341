"""Load a released model: a base by transformers, a locked folder by its defense's own code; safetensors only."""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub.errors import StrictDataclassError

from harness.errors import UsageError
from harness.models.gate import TensorInfo, check_finite, check_folder, check_kinds, one_line, read_json
from harness.models.known import KnownModel
from harness.models.resolve import is_online, resolve
from harness.plugins import Defense, Released
from harness.settings import unknown

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DTYPES = ("float32", "bfloat16", "float16")
_STORED = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_NOT_CONFIG = ("model_type", "architectures", "auto_map", "lockbench", "dtype", "torch_dtype", "transformers_version")
_BUILD_ERRORS = (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, ImportError,
                 ArithmeticError, StrictDataclassError)  # fmt: skip
"""What transformers raises for a folder it cannot make sense of; anything else is a bug and shows as one."""

DefenseNamed = Callable[[str, dict[str, Any]], Defense]
Headers = dict[Path, dict[str, TensorInfo]]


def load_model(
    name: str,
    *,
    data_dir: Path | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    trust_remote_code: bool = False,
    revision: str | None = None,
    known: Mapping[str, KnownModel] | None = None,
    defense_named: DefenseNamed | None = None,
    online: bool | None = None,
) -> Released:
    """Load a model and its tokenizer, in eval mode, every tensor checked.

    Args:
        name: a known model, else a local folder (locked ones too), else a hub id.
        data_dir: the data pack, for the known models inside it.
        dtype: float32, bfloat16, float16, or `auto` for what the files hold.
        device: where the weights go.
        trust_remote_code: allow the checkpoint's own Python; locked folders never need it.
        revision: of a hub id.
        known: models by name; default: all registered ones.
        defense_named: (name, settings) to the defense that rebuilds a locked folder; default: the registered one.
        online: whether the hub may be asked; default: only if `HARNESS_ONLINE=1`.

    Returns:
        `Released`; `digest` is of the weights in `dtype`, `lock` the folder's lockbench block (None for a base), and
        `model.config.stored_dtype` the type the files hold.

    Raises:
        UsageError: no such model, or a folder that does not pass the gate.
    """
    import torch

    from harness.models.digest import weights_digest

    if dtype not in (*DTYPES, "auto"):
        raise UsageError(unknown(dtype, (*DTYPES, "auto"), "dtype"))
    place = resolve(name, _all_known() if known is None else known, data_dir=data_dir, revision=revision,
                    online=is_online() if online is None else online, code=trust_remote_code)  # fmt: skip
    headers = check_folder(place.folder, links_within=place.links_within)
    place.verify()
    stored = stored_dtype(headers)
    chosen: torch.dtype = getattr(torch, stored if dtype == "auto" else dtype)
    config = read_json(place.folder / "config.json")
    lock = lock_block(config, place.folder)
    with quiet_bars():
        if lock is None:
            model = _load_base(place.folder, config, headers, chosen, trust_remote_code)
        else:
            model = _load_locked(place.folder, config, lock, headers, chosen, defense_named or _registered_defense)
    check_finite(model, str(place.folder))
    tokenizer = load_tokenizer(place.folder, trust_remote_code and lock is None, lock["base_model_type"] if lock else None)
    if model.generation_config is not None and model.generation_config.pad_token_id is None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.config.stored_dtype = stored
    return Released(model=_to_device(model.eval(), device), tokenizer=tokenizer, digest=weights_digest(model),
                    name=name, folder=place.folder, lock=lock)  # fmt: skip


def load_tokenizer(
    folder: Path, trust_remote_code: bool = False, model_type: str | None = None
) -> PreTrainedTokenizerBase:
    """The folder's tokenizer; where it has no pad token, EOS pads.

    Args:
        folder: the model's folder.
        trust_remote_code: allow a tokenizer class of the checkpoint's own.
        model_type: what config.json would say if the model were not locked; None: what it says.

    Raises:
        UsageError: there is none, or it cannot be read.
    """
    from transformers import AutoConfig, AutoTokenizer

    options = {"config": AutoConfig.for_model(model_type)} if model_type else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code,
                                                  **options)  # fmt: skip
    except _BUILD_ERRORS as error:
        raise UsageError(f"{folder}: its tokenizer cannot be loaded: {one_line(error)}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def stored_dtype(headers: Headers) -> str:
    """The torch name of the float type that most elements of the files have."""
    import math

    counts: Counter[str] = Counter()
    for header in headers.values():
        for info in header.values():
            if info.dtype in _STORED:
                counts[_STORED[info.dtype]] += math.prod(info.shape)
    if not counts:
        raise UsageError(f"{next(iter(headers))} holds no floating-point tensor")
    return counts.most_common(1)[0][0]


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


def _load_base(folder: Path, config: dict[str, Any], headers: Headers, dtype: torch.dtype,
               code: bool) -> PreTrainedModel:  # fmt: skip
    from transformers import AutoModelForCausalLM

    if "quantization_config" in config:
        raise UsageError(f"{folder} holds quantised weights (quantization_config); give the full-precision checkpoint")
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, trust_remote_code=code, use_safetensors=True,
            output_loading_info=True)  # fmt: skip
    except _BUILD_ERRORS as error:
        raise UsageError(f"{folder} cannot be loaded: {one_line(error)}") from error
    if report["missing_keys"]:  # transformers would fill them in at random, and only warn
        _wrong_keys(folder, "missing", report["missing_keys"])
    if report["unexpected_keys"]:  # older checkpoints carry masks and rotary tables that are computed today
        warnings.warn(f"{folder}: tensors the model does not use: {sorted(report['unexpected_keys'])}", stacklevel=3)
    check_kinds(headers, model)
    return model


def _load_locked(folder: Path, config: dict[str, Any], lock: dict[str, Any], headers: Headers, dtype: torch.dtype,
                 defense_named: DefenseNamed) -> PreTrainedModel:  # fmt: skip
    from transformers import GenerationConfig

    defense = defense_named(lock["defense"], lock["settings"])
    try:
        model = _empty_base(config, lock, headers, dtype)
    except _BUILD_ERRORS as error:
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
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    rest = {key: value for key, value in config.items() if key not in _NOT_CONFIG}
    built = AutoConfig.for_model(lock["base_model_type"], **rest)
    with torch.device("meta"):  # sizes are checked before memory is taken
        skeleton = AutoModelForCausalLM.from_config(built, dtype=dtype)
    if type(skeleton).__name__ != lock["base_architecture"]:
        raise UsageError(f"base_architecture={lock['base_architecture']!r}: model type {lock['base_model_type']!r} is "
                         f"{type(skeleton).__name__}")  # fmt: skip
    check_kinds(headers, skeleton)
    with no_init_weights():
        return AutoModelForCausalLM.from_config(built, dtype=dtype)


def _fill(model: PreTrainedModel, folder: Path, headers: Headers) -> None:
    """Copy every tensor of the files into the model, one at a time; both sides must be used up."""
    import torch
    from safetensors import safe_open

    targets = model.state_dict(keep_vars=True)
    filled: set[int] = set()
    for path, header in headers.items():
        extra = [name for name in header if name not in targets or id(targets[name]) in filled]
        if extra:
            _wrong_keys(folder, "unexpected", extra)
        with safe_open(path, framework="pt") as file, torch.no_grad():
            for name in header:
                targets[name].copy_(file.get_tensor(name))
                filled.add(id(targets[name]))
    missing = [name for name, tensor in targets.items() if id(tensor) not in filled]
    if missing:
        _wrong_keys(folder, "missing", missing)


def _wrong_keys(folder: Path, kind: str, names: Any) -> None:
    shown = sorted(str(name) for name in names)
    raise UsageError(f"{folder}: {len(shown)} {kind} tensor{'s' * (len(shown) > 1)}, for example {shown[0]!r}; "
                     "config.json and the weights do not belong together")  # fmt: skip


def _to_device(model: PreTrainedModel, device: str) -> PreTrainedModel:
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        if "out of memory" in str(error).lower():
            raise
        raise UsageError(f"device={device!r}: {one_line(error)}") from error


def _all_known() -> Mapping[str, KnownModel]:
    from harness import registry

    return registry.models().working()


def _registered_defense(name: str, settings: dict[str, Any]) -> Defense:
    from harness import registry

    chosen = registry.defenses().get(name)
    return chosen(chosen.Settings.parse(settings, "defense"))


@contextmanager
def quiet_bars() -> Iterator[None]:
    """No "Loading weights" and "Writing model shards" bars from transformers, and nothing on stdout.

    transformers may import deepspeed here, whose log goes to whatever stdout is at that moment, for good.
    """
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        if shown:
            logging.enable_progress_bar()
