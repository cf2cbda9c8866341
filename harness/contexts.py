"""What goes into a plug-in and what comes out. Imports no torch; plug-ins import these names from `harness.plugins`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from harness.meters.device_memory import DeviceMemory
    from harness.meters.meter import Meter
    from harness.plugins import Task
    from harness.search.undone import Undoing, Undone
    from harness.tasks.classification import ClassificationTask
    from harness.training import TrainResult


@dataclass(frozen=True, kw_only=True)
class Released:
    """A model as others get it: weights, tokenizer, and the sha256 of the weights."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    """Of an image classifier, its `harness.models.images.ImageProcessor`: what turns inputs into the model's."""
    digest: str
    name: str
    folder: Path | None = None
    lock: dict[str, Any] | None = None
    """For a locked model: `{"defense": name, "settings": {...}}`, as written in its config; None for a base."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What every plug-in gets."""

    seed: int
    device: str
    folder: Path
    """Scratch and resumable state; whatever is written here survives a kill."""
    meter: Meter
    """Counts and enforces; `meter.budget` is the budget."""
    data_dir: Path | None = None
    """The data pack, or None."""
    bf16: bool = False
    """Resolved precision: True trains under bf16 autocast with fp32 master weights."""
    progress: Callable[[str, int, int], None] = lambda label, done, total: None
    """Called with (label, done, total); draws a bar where there is a terminal."""
    memory: DeviceMemory | None = None
    """What is counted and capped of the device since the attack began; None: training counts for itself."""
    log: Callable[[Mapping[str, float], int], None] = lambda values, step: None
    """Called with ({name: number}, step): curves for `--report_to`; costs the attacker nothing."""


@dataclass(frozen=True, kw_only=True)
class LockContext(Context):
    """What a defense gets; `corpus` gives public text documents to distil or tune on, never the attack task's."""

    corpus: Callable[[str], Sequence[str]]
    """`corpus("train")` or `corpus("heldout")`: documents of the corpus the spec names."""
    own: ClassificationTask | None = None
    """What a classifier was made for, and the data a lock trains on; None for a language model."""


@dataclass(frozen=True, kw_only=True)
class AttackContext(Context):
    """What an attack gets."""

    task: Task
    secret: Path | None = None
    """The lock's secret; None unless the attack's knowledge is `secret`."""
    probe: Callable[[PreTrainedModel], float] | None = None
    """Scores a model on the selection split for the trajectory; the benchmark's cost, not the attacker's."""
    undone: Undone | None = None
    """In a trial of a search, or in a run of several: what those before it undid."""

    def undo(self, undoing: Undoing, settings: Settings) -> tuple[PreTrainedModel, dict[str, Any]]:
        """`undoing(settings)`: the undone model and JSON for the report, on the bill `undo`, and so at most once in an
        attack. In a search it is not made again as long as the settings that it looked at are the same."""
        return undoing(settings) if self.undone is None else self.undone.get(undoing, settings, self)


@dataclass(frozen=True, kw_only=True)
class Locked:
    """What a defense returns."""

    model: PreTrainedModel
    secret: dict[str, Any] | None = None
    """Tensors by name, kept apart from the release (PMP's mask)."""
    report: dict[str, Any] = field(default_factory=dict)
    """JSON: per-layer errors and the like."""
    dtype: str | None = None
    """Type that the release must be stored in for the lock to work; None: the one its base was stored in."""


@dataclass(frozen=True, kw_only=True)
class Attacked:
    """What an attack returns: the model, what training did, and the modules it targeted."""

    model: PreTrainedModel
    training: TrainResult
    targets: Sequence[str]
    """Names of every trained tensor or adapted module, as resolved from the model in hand (invariant 3)."""
    report: dict[str, Any] = field(default_factory=dict)
    guess: dict[str, Any] | None = None
    """The attacker's guess of the lock's secret, in the secret's own format; scored by `Defense.compare` afterwards."""
