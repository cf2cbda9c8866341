"""What a plug-in is: one class with a typed settings model and one method. Imports no torch.

A defense maps (base, context) to a locked model; an attack maps (released model, context) to an attacked model; a task
gives the adversary's data and scores a model on held-out items. Everything they need comes in the context: data,
budget and meter, seed, device, folder, progress. Nothing is global.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from harness.budget import Budget
from harness.contexts import AttackContext, Attacked, Context, LockContext, Locked, Released
from harness.kinds import Kind
from harness.search.space import Space, training_space
from harness.settings import Settings
from harness.train_settings import TrainSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.training import Batches, LossFn

Split = Literal["selection", "test"]


class Knowledge(StrEnum):
    """What the attacker knows of the lock; `secret` is an upper bound and never ranks."""

    RECIPE = "recipe"
    FAMILY = "family"
    CODE = "code"
    SECRET = "secret"


class Plugin(ABC):
    """Common to all kinds: a class docstring whose first line is the summary, and a settings model."""

    Settings: ClassVar[type[Settings]]

    def __init__(self, settings: Any) -> None:
        self.settings = settings  # an instance of the class's `Settings`

    @classmethod
    def summary(cls) -> str:
        """First line of the class docstring."""
        return (cls.__doc__ or "").strip().partition("\n")[0]


class Defense(Plugin):
    """A lock."""

    kinds: ClassVar[tuple[Kind, ...]] = ("causal_lm",)
    """Kinds of models that it can lock; others are refused before anything runs."""
    structural: ClassVar[bool] = False
    """Whether the lock changes the module tree (then `rebuild` must be overridden)."""
    pretrains: ClassVar[bool] = False
    """Whether the lock trains a model of its own from scratch (then `control` must be overridden): the control, and not
    the base, which has seen other and perhaps far more tokens, is what the locked model is compared with."""
    unbilled: ClassVar[str | None] = None
    """Why the cost of locking is not known, where it is not (then the record's bill of the lock is null)."""

    @abstractmethod
    def lock(self, base: Released, context: LockContext) -> Locked:
        """Lock `base` (may modify `base.model` in place and return it)."""

    def control(self, base: Released, context: LockContext) -> Locked:
        """Of a lock that pretrains: the same pretraining without the lock, from a context of the same seed."""
        raise NotImplementedError(f"{type(self).__name__} pretrains but has no control")

    def control_settings(self) -> dict[str, Any]:
        """The settings (JSON) that the control depends on; locks that share them share the control."""
        settings: dict[str, Any] = self.settings.model_dump(mode="json")
        return settings

    def compare(self, guess: dict[str, Any], secret: dict[str, Any]) -> dict[str, float]:
        """How close an attacker's guess of the secret comes, by measure; for the record, once the attack is over."""
        return {}

    def disclosed(self, lock: dict[str, Any] | None) -> dict[str, Any] | None:
        """`Released.lock` as attackers are told it; `lock` is the block that the released folder carries."""
        return lock

    def rebuild(self, model: PreTrainedModel) -> PreTrainedModel:
        """Give a freshly built base-architecture `model` the locked module tree, weights to be loaded after.

        Called when a locked folder is loaded; a lock that only changes values needs nothing here.
        """
        return model

    def export(self, locked: PreTrainedModel, folder: Path) -> None:
        """Write what plain `transformers` needs beside the weights (remote code, config entries); default: nothing."""
        return None


class Attack(Plugin):
    """An adversary with a budget."""

    kinds: ClassVar[tuple[Kind, ...]] = ("causal_lm",)
    """Kinds of models that it can attack; others are refused before anything runs."""
    knowledge: ClassVar[Knowledge] = Knowledge.RECIPE
    requires: ClassVar[tuple[str, ...]] = ()
    """Names of `harness.probes` that must hold (for example `deepspeed`); else the record says `unavailable`."""
    distributed: ClassVar[bool] = False
    """Whether a launcher's ranks train together (`harness.loop.ranks`); all must then go through the same steps."""
    as_given: ClassVar[tuple[str, ...]] = ()
    """Settings that stay as given whatever the best trial of a search had, as the trials ran another attack."""

    def search_space(self) -> Space:
        """What a search may vary: a distribution (`harness.search.space`) by setting, around the settings as given.

        Every attack whose settings are training knobs has those; others declare their own, or cannot be searched.
        """
        return training_space(self.settings) if isinstance(self.settings, TrainSettings) else {}

    def tried(self) -> dict[str, Any] | None:
        """The attack, by name and settings, that trials of a search run in place of this one; None is this one.

        For an attack that is too long to try many times. What follows the search is this one, with what was found.
        """
        return None

    @abstractmethod
    def attack(self, released: Released, context: AttackContext) -> Attacked:
        """Fine-tune `released.model` (in place is fine) for `context.task` within `context.meter.budget`."""


@dataclass(frozen=True, kw_only=True)
class ItemScore:
    """One scored item: a stable id, a score (larger is better for the attacker), a weight (bytes, or 1)."""

    metric: str
    item: str
    score: float
    weight: float = 1.0


class Task(Plugin):
    """A capability the attacker wants. `data_dir` is the data pack's folder, or None.

    As it stands it is language modelling on `train_texts`; a task of another kind of model says how batches are made,
    what the loss is and which head the model needs (`harness.tasks.classification`).
    """

    kind: ClassVar[Kind] = "causal_lm"
    """The kind of model that can do it."""
    metric: ClassVar[str]
    """The main metric: the weighted mean of the items that carry this name."""
    unit: ClassVar[str]
    """What the main score is in, for example `accuracy` or `-bits/byte`."""
    chance: ClassVar[float | None] = None
    """Score of guessing, where that is known."""
    attack_defaults: ClassVar[dict[str, Any]] = {}
    """Settings of attacks, where an attack has them, whose defaults were found on language modelling and do not fit."""
    needs_pack: ClassVar[bool] = False
    """True when the task cannot work without the data pack or the hub."""

    def __init__(self, settings: Settings, data_dir: Path | None = None) -> None:
        super().__init__(settings)
        self.data_dir = data_dir

    @abstractmethod
    def train_texts(self) -> Sequence[str]:
        """Documents that the attacker may train on, in a fixed order."""

    @abstractmethod
    def score(self, released: Released, split: Split, *, limit: int | None = None) -> list[ItemScore]:
        """Score a model on `split`; the model is in eval mode and no gradient is kept."""

    @abstractmethod
    def digest(self) -> str:
        """sha256 over the content of all splits."""

    def own_default(self) -> dict[str, Any] | None:
        """Of a classification task: what the attacked classifier was made for, where that follows from this task."""
        return None

    def has_training_data(self) -> bool:
        """Whether there is anything to train on."""
        return any(self.train_texts())

    def batches(self, tokenizer: Any, settings: TrainSettings, *, seed: int, examples: int | None = None) -> Batches:
        """Shuffled training batches: the documents packed without padding.

        Args:
            tokenizer: of the released model.
            settings: sizes.
            seed: of the order.
            examples: only so many of the first documents.
        """
        from harness.packing import PackedBlocks, tokenize

        return PackedBlocks(
            tokenize(self.train_texts()[:examples], tokenizer), block_size=settings.block_size,
            batch_size=settings.per_device_train_batch_size, accumulate=settings.gradient_accumulation_steps, seed=seed,
        )  # fmt: skip

    @property
    def loss_fn(self) -> LossFn:
        """The loss of a batch."""
        from harness.training import causal_lm_loss

        return causal_lm_loss

    @property
    def keeps_head(self) -> bool:
        """Whether the attacked model still answers in the released model's terms, so that its utility can be asked."""
        return True

    def adapt(self, released: Released) -> Released:
        """The released model with what the task needs put in (a head for other labels), in place."""
        return released


__all__ = ["Attack", "AttackContext", "Attacked", "Budget", "Context", "Defense", "ItemScore", "Knowledge",
           "LockContext", "Locked", "Plugin", "Released", "Settings", "Split", "Task"]  # fmt: skip
