"""From a model's name to the folder that holds it: known, local, fetched, or in the hub's cache."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from harness.errors import UsageError
from harness.files import sha256
from harness.models.gate import PICKLES, one_line
from harness.models.known import KnownModel
from harness.settings import unknown

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_HUB_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """A model's folder, what its links may point into, and the sha256 that its files must have."""

    folder: Path
    links_within: Path | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)

    def verify(self) -> None:
        """Compare the listed files with their sha256.

        Raises:
            UsageError: names the first file that differs or is missing.
        """
        for name, expected in self.sha256.items():
            path = self.folder / name
            if not path.is_file() or sha256(path) != expected:
                raise UsageError(f"{path} is missing or not the published file: its sha256 is not {expected[:16]}...")


def is_online() -> bool:
    """Whether `HARNESS_ONLINE=1` allows the network."""
    return os.environ.get("HARNESS_ONLINE") == "1"


def local_folder(name: str) -> Path | None:
    """The folder that `name` is the path of; None where there is none, or no path has such a name."""
    try:
        folder = Path(name).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # too long, ~ of an unknown user, a null character
        return None


def resolve(name: str, known: Mapping[str, KnownModel], *, data_dir: Path | None = None, revision: str | None = None,
            online: bool = False, code: bool = False) -> Place:  # fmt: skip
    """Find the folder of model `name`.

    Args:
        name: a known model, else a local folder, else a hub id.
        known: the known models by name.
        data_dir: the data pack.
        revision: of a hub id.
        online: whether the hub may be asked; else only its local cache is.
        code: whether to bring the checkpoint's own Python files too.

    Raises:
        UsageError: it is nowhere; says where it was looked for.
    """
    if name in known:
        return _known(known[name], data_dir, revision, online, code)
    folder = local_folder(name)
    if folder is not None:
        return Place(folder=folder)
    if os.path.lexists(name) or name.endswith((*PICKLES, ".safetensors", ".gguf")):
        kind = "a pickle, which can run code when loaded; " if name.endswith(PICKLES) else ""
        raise UsageError(f"model {name!r} is not a folder: {kind}give a folder with config.json and model.safetensors")
    if not _HUB_ID.fullmatch(name) or name.startswith("."):
        raise UsageError(unknown(name, known, "model") + ", a local folder (there is none of that name) or a hub id")
    return _hub(name, known, revision, online, code)


def _known(model: KnownModel, data_dir: Path | None, revision: str | None, online: bool, code: bool) -> Place:
    if model.packaged is not None:
        return Place(folder=Path(str(files("harness.models"))) / model.packaged, sha256=model.sha256)
    if model.pack is not None:
        if data_dir is None or not (data_dir / model.pack).is_dir():
            raise UsageError(f"model {model.name!r} is in the data pack (HARNESS_DATA or --data-dir), "
                             f"which {'is not given' if data_dir is None else f'has no {model.pack}'}")  # fmt: skip
        return Place(folder=data_dir / model.pack, sha256=model.sha256)
    from harness.cache import default_root
    from harness.models.fetch import fetched

    place = fetched(model.name, default_root())
    if place is not None and revision is None:
        return place
    if online and model.hub is not None:
        return _hub(model.hub, {}, revision, online, code)
    raise UsageError(f"model {model.name!r} is not in the cache yet; bring it with: harness fetch {model.name}")


def _hub(name: str, known: Mapping[str, KnownModel], revision: str | None, online: bool, code: bool) -> Place:
    from huggingface_hub import snapshot_download

    wanted = _HUB_FILES + ["*.py"] * code
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=wanted, local_files_only=not online))
    except Exception as error:  # the hub client raises a dozen unrelated types for "not there" and "not reachable"
        if online:
            raise UsageError(f"model {name!r}: the hub did not give it: {one_line(error)}") from error
        raise UsageError(unknown(name, known, "model") + ", a local folder, or a hub id that is in the hub's cache "
                         "(HARNESS_ONLINE=1 allows asking the hub)") from None  # fmt: skip
    return Place(folder=folder, links_within=folder.parents[1])
