"""Load a released model: a base by transformers, a locked folder by its defense's own code; safetensors only."""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError
from harness.kinds import auto_class, kind_of_config
from harness.models.gate import check_finite, check_folder, check_kinds, one_line, read_json
from harness.models.known import KnownModel
from harness.models.locked import BUILD_ERRORS, DefenseNamed, Headers, load_locked, lock_block, wrong_keys
from harness.models.resolve import is_online, resolve
from harness.plugins import Defense, Released
from harness.settings import unknown

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DTYPES = ("float32", "bfloat16", "float16")
_STORED = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


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
        device: where the weights go, if they have room there (`harness.models.placement`).
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

    torch.backends.cudnn.allow_tf32 = False  # on by default: fp32 convolutions would be rounded to ten bits
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
            model = load_locked(place.folder, config, lock, headers, chosen, defense_named or _registered_defense)
    check_finite(model, str(place.folder))
    tokenizer = _processor(place.folder, model, lock, trust_remote_code)
    if getattr(model, "generation_config", None) is not None and model.generation_config.pad_token_id is None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.config.stored_dtype = stored
    return Released(model=_to_device(model.eval(), device), tokenizer=tokenizer, digest=weights_digest(model),
                    name=name, folder=place.folder, lock=lock)  # fmt: skip


def _processor(folder: Path, model: PreTrainedModel, lock: dict[str, Any] | None, code: bool) -> Any:
    """What makes the model's inputs: a tokenizer, or the image processor that stands in its place."""
    if kind_of_config(read_json(folder / "config.json")) == "image_classification":
        from harness.models.images import ImageProcessor

        return ImageProcessor.from_folder(folder, getattr(model.config, "num_channels", 3))
    return load_tokenizer(folder, code and lock is None, lock["base_model_type"] if lock else None)


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
    except BUILD_ERRORS as error:
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


def _load_base(folder: Path, config: dict[str, Any], headers: Headers, dtype: torch.dtype,
               code: bool) -> PreTrainedModel:  # fmt: skip
    kind = kind_of_config(config)
    if "quantization_config" in config:
        raise UsageError(f"{folder} holds quantised weights (quantization_config); give the full-precision checkpoint")
    try:
        model, report = auto_class(kind).from_pretrained(
            folder, dtype=dtype, local_files_only=True, trust_remote_code=code, use_safetensors=True,
            output_loading_info=True)  # fmt: skip
    except BUILD_ERRORS as error:
        raise UsageError(f"{folder} cannot be loaded: {one_line(error)}") from error
    if report["missing_keys"]:  # transformers would fill them in at random, and only warn
        wrong_keys(folder, "missing", report["missing_keys"])
    if report["unexpected_keys"]:  # older checkpoints carry masks and rotary tables that are computed today
        warnings.warn(f"{folder}: tensors the model does not use: {sorted(report['unexpected_keys'])}", stacklevel=3)
    check_kinds(headers, model)
    if kind != "causal_lm" and getattr(model.config, "use_cache", False):  # a classifier never continues its input
        model.config.use_cache = False
    return model


def _to_device(model: PreTrainedModel, device: str) -> PreTrainedModel:
    from harness.models.placement import place

    try:
        return place(model, device)
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
