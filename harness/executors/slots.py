"""How many jobs this machine takes at once, and what they will import; both are seen without loading a model."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from harness import probes, registry
from harness.models.gate import check_folder, read_json
from harness.models.known import KnownModel
from harness.models.resolve import Place, is_online, resolve
from harness.spec import ModelChoice, Spec
from harness.threads import threads_for, usable_cores


def slots(cells: Sequence[Spec], data_dir: Path | None, given: int | None) -> int:
    """Jobs at once.

    Args:
        cells: of the matrix.
        data_dir: the data pack.
        given: what the user says; None: one a core if every model works on one thread of the CPU, else one.
    """
    if given is not None:
        return given
    gpu = probes.check("cuda") is None
    if any(spec.device.startswith("cuda") or (spec.device == "auto" and gpu) for spec in cells):
        return 1
    sizes = [made.parameters for made in _made(cells)]
    sizes += [parameters(place) for place in _places(cells, data_dir)]
    return usable_cores() if all(threads_for(size) == 1 for size in sizes) else 1


def parameters(place: Place) -> int:
    """Numbers in a model's weight files."""
    headers = check_folder(place.folder, links_within=place.links_within)
    return sum(math.prod(info.shape) for tensors in headers.values() for info in tensors.values())


def modules(cells: Sequence[Spec], data_dir: Path | None) -> list[str]:
    """Modules that these cells import: their plug-ins, and the transformers models that they build."""
    plugins = [type(part) for spec in cells for part in (spec.build_defense(), spec.build_attack())]
    names = [kind.__module__ for kind in dict.fromkeys(plugins)]
    for place in _places(cells, data_dir):
        family = str(read_json(place.folder / "config.json").get("model_type", ""))
        library = find_spec("transformers")
        file = Path(str(library and library.origin)).parent / "models" / family / f"modeling_{family}.py"
        if re.fullmatch(r"\w+", family) and file.exists():
            names.append(f"transformers.models.{family}.modeling_{family}")
    return list(dict.fromkeys(names))


def _made(cells: Sequence[Spec]) -> list[KnownModel]:
    """The classifiers that are made here, of which there is no folder yet."""
    known = registry.models().working()
    named = {spec.model.name for spec in cells} & known.keys()
    return [known[name] for name in sorted(named) if known[name].build is not None]


def _places(cells: Sequence[Spec], data_dir: Path | None) -> list[Place]:
    known = registry.models().working()
    made = {model.name for model in _made(cells)}
    choices: dict[str, ModelChoice] = {
        spec.model.model_dump_json(): spec.model for spec in cells if spec.model.name not in made
    }
    return [resolve(choice.name, known, data_dir=data_dir, revision=choice.revision, online=is_online(),
                    code=choice.trust_remote_code) for choice in choices.values()]  # fmt: skip
