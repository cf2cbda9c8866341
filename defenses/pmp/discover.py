"""Stage I: the early-bird ticket. Dense training from the initial weights, scores from gradients, then a rewind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from defenses.pmp.mask import Mask, iou, masked_parameters, top
from harness.train_settings import TrainSettings
from harness.training import Batches, train

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from defenses.pmp import PMPSettings
    from harness.plugins import LockContext


class Scores:
    """|gradient| of every masked entry: the mean over the batches so far, or that of the last batch alone."""

    def __init__(self, parameters: dict[str, torch.nn.Parameter], *, average: bool) -> None:
        self.values = {name: torch.zeros_like(p) for name, p in parameters.items()}
        self._average = average
        self._handles = [self._listen(name, parameter) for name, parameter in parameters.items()]

    def _listen(self, name: str, parameter: Any) -> Any:
        def add(parameter: torch.nn.Parameter) -> None:
            if parameter.grad is not None:
                found = parameter.grad.detach().abs()
                self.values[name].add_(found) if self._average else self.values[name].copy_(found)

        return parameter.register_post_accumulate_grad_hook(add)

    def close(self) -> None:
        """Stop listening."""
        for handle in self._handles:
            handle.remove()


def discover(model: PreTrainedModel, batches: Batches, settings: PMPSettings,
             context: LockContext) -> tuple[Mask, dict[str, Any]]:  # fmt: skip
    """Train `model` densely until consecutive masks agree, then put its weights back.

    Returns:
        The mask (the last one, where they never agreed), and JSON: steps, whether the rule fired, and the
        intersection over union of consecutive masks.
    """
    start = {name: value.clone() for name, value in model.state_dict().items()}
    paper = settings.variant == "paper"
    scores = Scores(masked_parameters(model, everything=not paper), average=paper)
    masks: list[Mask] = []
    agreement: list[float] = []

    def converged(step: int) -> bool:
        masks.append(top(scores.values, settings.rho))
        if len(masks) == 1:
            return False
        agreement.append(iou(*masks[-2:]))
        del masks[0]
        last = agreement[-settings.mask_patience :]
        return len(last) == settings.mask_patience and min(last) >= 1 - settings.mask_distance

    knobs = TrainSettings(**settings.model_dump(include=set(TrainSettings.model_fields)) | {
        "max_steps": settings.discovery_steps, "gradient_accumulation_steps": 1, "save_steps": 0})  # fmt: skip
    try:
        result = train(model, batches, knobs, context, label="find the mask", stop=converged,
                       beside_bytes=_bytes(start) + _bytes(scores.values))  # fmt: skip
    finally:
        scores.close()
    model.load_state_dict(start)
    return masks[-1], {"steps": result.steps, "converged": result.stopped_by == "stop", "consecutive_iou": agreement}


def _bytes(tensors: dict[str, torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
