"""Fine-tuning of a ticket: what `authorised` does with the secret mask and `undo_pmp` with a guessed one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attacks.common import unfreeze
from defenses.pmp.complement import Complement
from harness.finetune import finetune

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from defenses.pmp.mask import Mask
    from harness.plugins import AttackContext
    from harness.train_settings import TrainSettings
    from harness.training import TrainResult


def finetune_ticket(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, mask: Mask | None, settings: TrainSettings,
    context: AttackContext,
) -> tuple[TrainResult, list[str]]:  # fmt: skip
    """Fine-tune the prepared `model` on the task: where `mask` covers a tensor its True entries, all others whole.

    Args:
        model: as `attacks.common.prepare` leaves it.
        tokenizer: of the released model.
        mask: bool tensors by parameter name; None trains everything.
        settings: training knobs.
        context: task, budget, seed, device.

    Returns:
        What training did, and the names of the tensors that trained (those with an empty ticket do not).
    """
    mask = mask or {}
    targets = unfreeze(model, lambda name: name not in mask or bool(mask[name].any()))
    with Complement(model, mask) as complement:
        training = finetune(model, tokenizer, context, settings, stop=complement.after_step,
                            beside_bytes=complement.bytes)  # fmt: skip
    return training, targets
