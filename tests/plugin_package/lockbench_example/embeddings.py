"""An attack that trains the input embeddings only."""

from __future__ import annotations

from harness.plugins import Attack, AttackContext, Attacked, Released
from harness.train_settings import TrainSettings


class EmbeddingsOnly(Attack):
    """Train the input embeddings and nothing else (an example)."""

    Settings = TrainSettings

    def attack(self, released: Released, context: AttackContext) -> Attacked:
        """Freeze everything else, then fine-tune."""
        from harness.finetune import finetune

        released.model.requires_grad_(False)
        released.model.get_input_embeddings().requires_grad_(True)
        result = finetune(released.model, released.tokenizer, context, self.settings)
        return Attacked(model=released.model, training=result, targets=result.trained)
