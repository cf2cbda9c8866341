"""SpecDef as a reparameterisation, our reconstruction: inflated matrices and their inverses beside them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from harness.errors import UsageError
from harness.kinds import WITH_TOKENS, Kind
from harness.plugins import Defense, LockContext, Locked, Released
from harness.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class SpecDefReparamSettings(Settings):
    """How much is inflated and where; the defaults are the paper's (docs/locks/specdef_reparam.md)."""

    alpha: float = Field(1e4, gt=1)
    """Factor on the largest singular values."""
    k: int = Field(25, ge=1)
    """Singular values inflated in each layer; where a side of the layer is shorter, all of them."""
    layers: str | tuple[str, ...] = "random"
    """`random`: `count` linear layers; `all`; or a regular expression or a list of names (see harness.targets)."""
    count: int = Field(5, ge=1)
    """Layers of `layers=random`."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the release, whatever the base was stored in; half precision does not hold the pair."""
    max_kl: float = Field(1e-2, gt=0)
    """Most KL(base, locked) in nats a token, unmerged and in `dtype`, with which the lock is still released."""
    heldout_tokens: int = Field(4096, ge=1)
    """Tokens of held-out text on which that is measured; of a classifier, its own task's selection split is used."""


class SpecDefReparam(Defense):
    """SpecDef (reconstruction): large singular values inflated and, by an extra layer, divided again."""

    kinds: ClassVar[tuple[Kind, ...]] = WITH_TOKENS
    Settings: ClassVar[type[Settings]] = SpecDefReparamSettings
    structural: ClassVar[bool] = True
    settings: SpecDefReparamSettings

    def lock(self, base: Released, context: LockContext) -> Locked:
        """Inflate and compensate layers of `base.model`, in place, without training.

        Raises:
            UsageError: the settings name layers that are not there, or more than there are.
            Outcome: at the precision of the release, the pair is not the base any more.
        """
        from defenses.specdef_reparam.lock import lock

        return lock(base, self.settings, context)

    def rebuild(self, model: PreTrainedModel) -> PreTrainedModel:
        """Base architecture to locked architecture, weights to be loaded after; which layers, the config says.

        Raises:
            UsageError: the config does not name linear layers of the model.
        """
        from defenses.specdef_reparam.modeling_specdef_reparam import PART, install
        from harness.models.derived import convert

        value: Any = getattr(model.config, PART.key, None)
        try:
            install(model, value)
        except (AttributeError, KeyError, TypeError) as error:
            raise UsageError(f"config.json: {PART.key} does not name linear layers of the model: {error}") from error
        rebuilt: PreTrainedModel = convert(PART, model, value)
        return rebuilt

    def export(self, locked: PreTrainedModel, folder: Path) -> None:
        """Write config.json with its auto map, the remote code, and the model card."""
        from defenses.specdef_reparam.card import export

        export(locked, folder)


__all__: list[Any] = ["SpecDefReparam", "SpecDefReparamSettings"]
