"""Resumable checkpoints of a training run, without pickles: safetensors, JSON, and a marker written last.

A marker names the two files of one step and their sha256, so a torn or truncated write is never resumed from.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import torch

from harness.files import atomic_write_bytes, atomic_write_json, confined, sha256

log = logging.getLogger(__name__)
Scalars = dict[str, Any]
Tensors = dict[str, torch.Tensor]
_MARKER = "latest.json"



class Checkpoint:
    """The newest state of one training run, in `folder / checkpoint-<label>`."""

    def __init__(self, folder: Path, label: str, fingerprint: str) -> None:
        self._folder = confined(folder, f"checkpoint-{label}")
        self._fingerprint = fingerprint

    def save(self, step: int, tensors: Tensors, scalars: Scalars) -> None:
        """Write the state after `step` and only then let the marker point to it."""
        from safetensors.torch import save

        self._folder.mkdir(parents=True, exist_ok=True)
        names = [f"state-{step}.safetensors", f"state-{step}.json"]
        data = [save({key: value.detach().cpu().contiguous() for key, value in tensors.items()}),
                json.dumps(scalars, allow_nan=True).encode()]  # fmt: skip
        for name, content in zip(names, data, strict=True):
            atomic_write_bytes(self._folder / name, content)
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in zip(names, data, strict=True)}
        atomic_write_json(self._folder / _MARKER, {"fingerprint": self._fingerprint, "step": step, "files": digests})
        for old in self._folder.glob("state-*"):
            if old.name not in names:
                old.unlink()

    def load(self) -> tuple[Tensors, Scalars] | None:
        """The saved state, or None where there is none for this very run; a broken one is ignored with a warning."""
        from safetensors.torch import load_file

        path = self._folder / _MARKER
        if not path.exists():
            return None
        try:
            marker = json.loads(path.read_text())
            if marker["fingerprint"] != self._fingerprint:
                raise ValueError("it is of another run (settings, seed, data or weights differ)")
            files = {name: confined(self._folder, name) for name in marker["files"]}
            for name, digest in marker["files"].items():
                if sha256(files[name]) != digest:
                    raise ValueError(f"{name} is damaged")
            step = marker["step"]
            tensors = load_file(files[f"state-{step}.safetensors"])
            scalars = json.loads(files[f"state-{step}.json"].read_text())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("checkpoint %s is ignored, training starts anew: %s", self._folder.name, error)
            return None
        return tensors, scalars

    def remove(self) -> None:
        """Delete it: the run is complete."""
        shutil.rmtree(self._folder, ignore_errors=True)


def fingerprint(**parts: Any) -> str:
    """sha256 over everything that makes two runs the same run."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def optimizer_state(optimizer: torch.optim.Optimizer, names: dict[torch.Tensor, str]) -> tuple[Tensors, Scalars]:
    """Optimizer state as flat tensors (`optimizer/<parameter>/<key>`) and plain numbers under the same keys.

    Some optimizers count their steps in their groups, all of which step together: `optimizer//step`.
    """
    groups = optimizer.param_groups
    tensors: Tensors = {}
    scalars: Scalars = {"optimizer//step": groups[0]["step"]} if "step" in groups[0] else {}
    for p, state in optimizer.state.items():
        for key, value in state.items():
            flat = f"optimizer/{names[p]}/{key}"
            if isinstance(value, torch.Tensor):
                # On the host, and a copy: safetensors refuses shared storage (quantization maps).
                tensors[flat] = value.detach().to("cpu", copy=True)
            else:
                scalars[flat] = value
    return tensors, scalars


def restore_optimizer(
    optimizer: torch.optim.Optimizer, names: dict[torch.Tensor, str], tensors: Tensors, scalars: Scalars
) -> None:
    """Put flat state back, each tensor at the dtype it had (load_state_dict would cast to the parameter's)."""
    by_name = {name: p for p, name in names.items()}
    shared: Tensors = {}
    fused = {p for group in optimizer.param_groups for p in group["params"]
             if group.get("fused") or group.get("capturable")}  # fmt: skip
    for flat, value in [*tensors.items(), *scalars.items()]:
        if not flat.startswith("optimizer/"):
            continue
        _, name, key = flat.split("/")
        if not name:
            for group in optimizer.param_groups:
                group[key] = value
            continue
        p = by_name[name]
        if isinstance(value, torch.Tensor) and (key != "step" or p in fused):  # else a step counter lies on the host
            value = value.to(p.device)
        if key.startswith("qmap"):  # one quantization map serves all tensors
            value = shared.setdefault(key, value)
        optimizer.state[p][key] = value
