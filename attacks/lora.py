"""`lora`: low-rank adapters by PEFT on every linear layer of the model in hand, merged when done."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from attacks.full import FullSettings
from harness.kinds import KINDS, Kind
from harness.plugins import Attack, AttackContext, Attacked, Released
from harness.search.space import Choice, Space

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


class LoRASettings(FullSettings):
    """Training knobs and PEFT's names for the adapters."""

    learning_rate: float = Field(5e-3, gt=0)
    """Peak learning rate."""
    r: int = Field(64, gt=0)
    """Rank of each adapter; where a side of the layer is shorter, that side (more would only cost memory)."""
    lora_alpha: float = Field(128.0, gt=0)
    """The adapter's product is scaled by lora_alpha / r, in thin layers too."""
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """"all-linear", a regular expression over whole module paths, or a list of names (see harness.targets)."""


class LoRA(Attack):
    """LoRA adapters (PEFT) on every linear layer found in the model, a lock's own layers included."""

    kinds: ClassVar[tuple[Kind, ...]] = KINDS
    Settings = LoRASettings
    settings: LoRASettings

    def search_space(self) -> Space:
        """The training knobs, and the rank; lora_alpha / r scales like the learning rate, which is searched."""
        return {**super().search_space(), "r": Choice(values=(8, 16, 32, 64, 128))}

    def attack(self, released: Released, context: AttackContext) -> Attacked:
        """See `harness.plugins.Attack`."""
        from attacks.common import finish, prepare
        from harness.finetune import finetune
        from harness.targets import linear_targets

        model = prepare(released.model, context)
        targets = linear_targets(model, self.settings.target_modules)
        with context.meter.stage("attack"):
            report = self.convert(model, targets)
            adapted = add_adapters(model, targets, self.settings, context.seed)
            training = finetune(adapted, released.tokenizer, context, self.settings)
            model = self.merge(adapted)
        return Attacked(model=finish(model), training=training, targets=targets, report=report)

    def convert(self, model: PreTrainedModel, targets: Sequence[str]) -> dict[str, Any]:
        """Change the frozen model before the adapters go on; returns what the report says of it."""
        return {}

    def merge(self, adapted: Any) -> PreTrainedModel:
        """The plain model with the adapters added into its weights."""
        merged: PreTrainedModel = adapted.merge_and_unload()
        return merged


def add_adapters(model: PreTrainedModel, targets: Sequence[str], settings: LoRASettings, seed: int) -> Any:
    """A PEFT model with an adapter on exactly `targets`; only the adapters train.

    Raises:
        RuntimeError: PEFT adapted other layers than asked for (a wrong list would flatter a lock).
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from peft.tuners.tuners_utils import BaseTunerLayer

    from harness.models.heads import head_name, head_of

    # Adapters on a fresh head would be products of zeros: a classifier's head trains whole, as PEFT does it.
    heads = [head_name(model)] if head_of(model) is not None else None
    ranks = {_exactly(names): rank for rank, names in thin(model, targets, settings.r).items()}
    config = LoraConfig(
        r=settings.r, lora_alpha=settings.lora_alpha, lora_dropout=settings.lora_dropout, bias="none",
        target_modules=_exactly(targets), modules_to_save=heads,  # a list would also match by the end of a path
        rank_pattern=ranks, alpha_pattern={key: settings.lora_alpha / settings.r * rank for key, rank in ranks.items()},
        task_type="CAUSAL_LM" if hasattr(model, "prepare_inputs_for_generation") else None)  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapted = get_peft_model(model, config, autocast_adapter_dtype=False)
    found = {name for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}
    if found != set(targets):
        raise RuntimeError(f"PEFT adapted {sorted(found ^ set(targets))[:3]}... differently from the resolved targets")
    return adapted


def thin(model: nn.Module, targets: Sequence[str], rank: int) -> dict[int, list[str]]:
    """Targets whose shorter side is below `rank`, by that side."""
    found: dict[int, list[str]] = {}
    for name in targets:
        layer: Any = model.get_submodule(name)
        # GPT-2's Conv1D has no in_features, and the weight of a 4-bit layer is packed; a convolution is (out, rest).
        sides = (layer.in_features, layer.out_features) if hasattr(layer, "in_features") else (
            len(layer.weight), layer.weight[0].numel())  # fmt: skip
        side = min(sides)
        if side < rank:
            found.setdefault(side, []).append(name)
    return found


def _exactly(names: Sequence[str]) -> str:
    """A regular expression that matches these paths and no others."""
    return "|".join(re.escape(name) for name in names)
