"""DLR-Lock, our reconstruction: every MLP becomes a deep stack of low-rank residual blocks (docs/locks/dlr.md)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from harness.plugins import Defense, LockContext, Locked, Released
from harness.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class DLRSettings(Settings):
    """The shape of the nets and how they are distilled; the defaults follow from docs/locks/dlr.md."""

    depth: int = Field(32, ge=1, le=1024)
    """Blocks a net."""
    rank: int | None = Field(None, ge=1)
    """Rank of every block; null gives the ranks that match the parameters of the MLP replaced."""
    activation: Literal["silu", "gelu", "relu"] = "silu"
    """Nonlinearity of a block (`partition` takes the MLP's own)."""
    norm: Literal["rms", "none"] = "rms"
    """Whether a block reads `h / rms(h)` or `h`."""
    head: Literal["residual", "learned"] = "residual"
    """The net's output: `h_L - x`, or a learned map of `h_L`."""
    init: Literal["random", "greedy", "partition"] = "greedy"
    """`random`; `greedy`: random reading matrices, writing matrices by least squares block by block; `partition`:
    gated blocks made of slices of the pretrained MLP (better utility, but a copy undoes it)."""
    module_steps: int = Field(100, ge=0)
    """Steps of module-wise distillation: each net on the input and output of the MLP it replaces."""
    cascade_steps: int = Field(0, ge=0)
    """Steps in which each net sees the locked model's own hidden states and learns the MLP's output on them."""
    polish_steps: int = Field(110, ge=0)
    """Steps of end-to-end KL to the base, only the nets trained."""
    optim: Literal["muon", "adamw_torch"] = "muon"
    """Optimizer of every stage; Muon's updates are scaled to AdamW's, so the learning rates fit both."""
    module_learning_rate: float = Field(1e-2, gt=0)
    """Peak learning rate of the module-wise and cascade stages."""
    polish_learning_rate: float = Field(3e-3, gt=0)
    """Peak learning rate of the polish."""
    batch_size: int = Field(8, gt=0)
    """Sequences a step, in every stage."""
    block_size: int = Field(128, gt=1)
    """Tokens a sequence."""
    self_generated: float = Field(0.25, ge=0, le=1)
    """Share of the training tokens that the base itself samples; the rest is the corpus."""
    generated_tokens: int = Field(65536, gt=0)
    """Most tokens that the base samples."""
    patience: int = Field(3, ge=1)
    """Checks of the held-out error, one every `check_every` steps, that end a stage when it rises at all of them."""
    check_every: int = Field(50, gt=0)
    """Steps between checks of the held-out error."""


class DLRLock(Defense):
    """DLR-Lock (reconstruction): MLPs become deep low-rank residual nets, so fine-tuning needs far more memory."""

    Settings: ClassVar[type[Settings]] = DLRSettings
    structural: ClassVar[bool] = True
    settings: DLRSettings

    def lock(self, base: Released, context: LockContext) -> Locked:
        """Distil every MLP of `base.model` (changed in place) into a DLR-Net.

        Raises:
            UsageError: the model has no MLPs that can be found, or the settings leave a block without rank.
        """
        from defenses.dlr.lock import lock

        return lock(base, self.settings, context)

    def rebuild(self, model: PreTrainedModel) -> PreTrainedModel:
        """Base architecture to locked architecture, weights to be loaded after.

        The shape comes from `model.config.dlr` where the folder's config has it, else from these settings.
        """
        from defenses.dlr.build import convert_to_locked

        return convert_to_locked(model, self.settings)

    def export(self, locked: PreTrainedModel, folder: Path) -> None:
        """Write config.json with its auto map, the remote code, and the model card."""
        from defenses.dlr.card import export

        export(locked, folder)


__all__: list[Any] = ["DLRLock", "DLRSettings"]
