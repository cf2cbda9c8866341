"""What is refused before anything is loaded, trained or written: one line each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.spec import Spec


def check_inputs(specs: Sequence[Spec], data_dir: Path | None, *, lock: bool = True, attack: bool = True) -> None:
    """See that the models, tasks and texts of all cells are here and whole, as far as that shows without a model.

    Args:
        specs: of all cells.
        data_dir: the data pack.
        lock: whether a lock is made, which needs its corpus.
        attack: whether an attack is run, which needs its task.

    Raises:
        UsageError: naming what is missing or broken.
    """
    from harness import registry
    from harness.corpus import corpus
    from harness.models.gate import check_folder
    from harness.models.resolve import is_online, resolve
    from harness.quiet import quiet_libraries, stdout_kept
    from harness.utility.lm_eval_bridge import check_tasks

    quiet_libraries()
    known = registry.models().working()
    for spec in _distinct(specs, lambda spec: spec.model):
        if spec.model.name in known and known[spec.model.name].build is not None:
            continue  # made from its own task, which is checked below
        place = resolve(spec.model.name, known, data_dir=data_dir, revision=spec.model.revision, online=is_online(),
                        code=spec.model.trust_remote_code)  # fmt: skip
        check_folder(place.folder, links_within=place.links_within)
    for device in sorted({spec.device for spec in specs}):
        check_device(device)
    with stdout_kept():
        for spec in _distinct(specs, lambda spec: spec.task) if attack else ():
            check_task(spec, data_dir)
        language = [spec for spec in specs if spec.own is None]
        for spec in _distinct([spec for spec in specs if spec.own is not None], lambda spec: spec.own):
            check_data(spec.build_own(data_dir), (spec.own or {})["name"])
        for name in sorted({spec.corpus for spec in language}) if lock else ():
            corpus(name, "train", data_dir)
        for spec in _distinct(language, lambda spec: spec.utility):
            corpus(spec.utility.perplexity_corpus, "heldout", data_dir)
            check_tasks(spec.utility.tasks, data_dir)


def check_task(spec: Spec, data_dir: Path | None) -> None:
    """See that the task's data is here, whole and not empty.

    Raises:
        UsageError: it needs the data pack and there is none, there is nothing to train on, or rows lack a field.
    """
    check_data(spec.build_task(data_dir), spec.task["name"])


def check_data(task: Any, name: str) -> None:
    """`check_task` of a task in hand."""
    if not task.needs_pack:
        return
    try:
        texts = task.has_training_data()
        task.digest()  # goes through every split
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise UsageError(f"task {name!r}: a row of its data is not as in the data pack: {error!r}") from None
    if not texts:
        raise UsageError(f"task {name!r} has no training text")


def check_device(device: str) -> None:
    """See that a CUDA device that is asked for is here.

    Raises:
        UsageError: it is not.
    """
    from harness import probes

    if not device.startswith("cuda"):
        return
    reason = probes.check("cuda")
    if reason is None:
        import torch

        count = torch.cuda.device_count()
        if int(device.partition(":")[2] or 0) >= count:
            reason = f"there are {count} CUDA devices here, counted from 0"
    if reason is not None:
        raise UsageError(f"device={device!r}: {reason}")


def check_places(out: Path, cache: Path | None) -> None:
    """Make the output folder and the cache, and see that they take files.

    Raises:
        UsageError: one cannot be made, is not writable or is full, or `out` holds records of another schema version.
    """
    from harness.files import check_output_folder
    from harness.records.cell_files import RECORD
    from harness.records.record import READABLE, SCHEMA_VERSION
    from harness.records.record_files import read_document

    check_output_folder(out)
    check_cache(cache)
    for path in out.glob(f"cells/*/{RECORD}"):
        try:
            version = read_document(path.parent).get("schema_version")
        except (ValueError, AttributeError, OSError):  # half-written or foreign: the cell is simply run again
            continue
        if version not in READABLE:
            raise UsageError(f"{out} holds records of schema version {version!r}, this lockbench writes "
                             f"{SCHEMA_VERSION}: choose another folder with --out")  # fmt: skip


def check_cache(cache: Path | None) -> None:
    """Make the cache's folder (`--cache`, else the default) and see that it takes files.

    Raises:
        UsageError: it cannot be made, is not writable or is full.
    """
    from harness.cache import default_root
    from harness.files import check_output_folder

    check_output_folder(cache or default_root(), what="cache")


def _distinct(specs: Iterable[Spec], part: Callable[[Spec], Any]) -> list[Spec]:
    """One spec for each different value of a part of it."""
    return list({str(part(spec)): spec for spec in specs}.values())
