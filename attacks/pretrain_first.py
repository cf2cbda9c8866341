"""`pretrain_first`: continued pretraining on public text, then the task.

A lock may leave weights from which a task alone is hard to learn: nearly zero ones (PMP's complement), badly scaled
ones, ones that only approximate what was there. Ordinary text wakes them up before the task's few documents are spent.
It is the benign-data attack too: nothing in the first part has to do with the task. All of it is on the bill `undo`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from attacks.full import FullSettings
from harness.plugins import Attack, AttackContext, Attacked, Released
from harness.search.space import LEARNING_RATES, Space

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PretrainFirstSettings(FullSettings):
    """`full`'s settings for the task, and the pretraining before it."""

    corpus: Literal["python_docs", "wikitext2", "shakespeare"] = "python_docs"
    """Public text (harness.corpus), its training split; all but `python_docs` need the data pack."""
    pretrain_steps: int = Field(100, gt=0)
    """Optimizer steps on the public text; under a budget at most half of what is left."""
    pretrain_learning_rate: float = Field(3e-3, gt=0)
    """Peak learning rate on the public text (schedule and batches as on the task)."""


class PretrainFirst(Attack):
    """Continue pretraining every parameter on public text, then fine-tune on the task."""

    Settings = PretrainFirstSettings
    settings: PretrainFirstSettings

    def search_space(self) -> Space:
        """See `harness.plugins.Attack`: a rate that ruins a locked model on the task ruins it on public text too."""
        return {**super().search_space(), "pretrain_learning_rate": LEARNING_RATES}

    def attack(self, released: Released, context: AttackContext) -> Attacked:
        """See `harness.plugins.Attack`.

        Raises:
            UsageError: the corpus needs the data pack, and there is none.
        """
        from attacks.common import finish, prepare, unfreeze
        from harness.corpus import corpus
        from harness.finetune import finetune

        documents = corpus(self.settings.corpus, "train", context.data_dir)

        def pretrained(seen: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
            model = prepare(released.model, context)
            unfreeze(model)
            with context.meter.stage("undo"):
                return model, {"pretrain_steps": self.pretrain(released, documents, seen, context)}

        model, report = context.undo(pretrained, self.settings)
        targets = unfreeze(model)
        training = finetune(model, released.tokenizer, context, self.settings)
        return Attacked(model=finish(model), training=training, targets=targets, report=report)

    def pretrain(self, released: Released, documents: list[str], settings: Any, context: AttackContext) -> int:
        """Train on the documents, in place; returns the steps done (0 where the budget's half has none)."""
        from attacks.share import Share
        from harness.packing import PackedBlocks, tokenize
        from harness.seeds import derive
        from harness.train_settings import TrainSettings
        from harness.training import train

        share = Share(context.meter)
        size, parts = settings.per_device_train_batch_size, settings.gradient_accumulation_steps
        flops = 6 * released.model.num_parameters()
        tokens = share.affordable(flops)
        steps = min(settings.pretrain_steps, tokens // (size * parts * settings.block_size), share.steps())
        if not steps:
            return 0
        batches = PackedBlocks(tokenize(documents, released.tokenizer), block_size=settings.block_size, batch_size=size,
                               accumulate=parts, seed=derive(context.seed, "pretrain"))  # fmt: skip
        own = {"learning_rate": settings.pretrain_learning_rate, "max_steps": steps, "eval_points": 0}
        knobs = TrainSettings(**own, **{name: getattr(settings, name) for name in TrainSettings.model_fields
                                        if name not in own})  # fmt: skip
        return train(released.model, batches, knobs, context, label="pretrain", stop=lambda _: share.late()).steps
