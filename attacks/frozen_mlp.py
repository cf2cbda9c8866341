"""`frozen_mlp`: only attention trains; every MLP, and whatever a lock put in its place, stays as released.

A frozen linear layer keeps no input for backward, so most of what a deep lock makes autograd keep is not kept
(papers: DLR-Lock, derived attack 2). The gradient still flows through the frozen modules to earlier layers.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from attacks.full import FullSettings
from harness.plugins import Attack, AttackContext, Attacked, Released


class FrozenMLPSettings(FullSettings):
    """`full`'s settings, and what may train."""

    learning_rate: float = Field(1e-2, gt=0)
    """Peak learning rate."""
    scope: Literal["attention", "all_but_mlp"] = "all_but_mlp"
    """`all_but_mlp` trains attention, norms, embeddings and the output head; `attention` the self-attention only, which
    the sweep found weaker."""


class FrozenMLP(Attack):
    """Fine-tune everything but the MLPs, or what a lock put in their place."""

    Settings = FrozenMLPSettings
    settings: FrozenMLPSettings

    def attack(self, released: Released, context: AttackContext) -> Attacked:
        """See `harness.plugins.Attack`."""
        from attacks.common import finetune_chosen, prepare
        from harness.models.families import attention_modules, find_mlps

        model = prepare(released.model, context)
        only = self.settings.scope == "attention"
        modules = attention_modules(model).values() if only else [site.module for site in find_mlps(model)]
        named = {id(p) for module in modules for p in module.parameters()}
        parameters = dict(model.named_parameters())
        return finetune_chosen(model, released, context, self.settings,
                               lambda name: (id(parameters[name]) in named) == only)  # fmt: skip
