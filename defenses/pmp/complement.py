"""Training a part of a tensor's entries through the common loop, the rest held where it is."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import torch

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.hooks import RemovableHandle

    from defenses.pmp.mask import Mask


class Complement:
    """Inside `with`, only the ticket of `model` trains. Pass `after_step` to `train` as its `stop`.

    Gradients of the complement are zero before anything sees them: the clip, the optimizer's moments, the proof. An
    optimizer may still move an entry without gradient (weight decay; Muon, which orthogonalises whole matrices), so
    with `hold` the complement's values are also put back after each step and at the end, bit for bit.
    """

    def __init__(self, model: nn.Module, ticket: Mask, *, hold: bool = True) -> None:
        named = dict(model.named_parameters())
        self._parts = [(named[name], ~part.to(named[name].device)) for name, part in ticket.items()]
        self._held = [parameter.detach().clone() for parameter, _ in self._parts] if hold else []
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        self._handles = [_hide(parameter, frozen) for parameter, frozen in self._parts if parameter.requires_grad]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for handle in self._handles:
            handle.remove()
        self.after_step(0)

    def after_step(self, step: int) -> bool:
        """Put the complement back; False, because this is no reason to stop."""
        with torch.no_grad():
            for (parameter, frozen), held in zip(self._parts, self._held, strict=False):
                parameter.copy_(torch.where(frozen, held, parameter))
        return False

    def norm(self) -> float:
        """L2 norm of all complement entries together."""
        with torch.no_grad():
            squares = [(p.double() * frozen).square().sum() for p, frozen in self._parts]
        return float(torch.stack(squares).sum().sqrt())

    def project(self, radius: float) -> None:
        """Scale the complement so that its norm is at most `radius`."""
        norm = self.norm()
        if norm > radius:
            with torch.no_grad():
                for parameter, frozen in self._parts:
                    parameter.copy_(torch.where(frozen, parameter * (radius / norm), parameter))

    @property
    def bytes(self) -> int:
        """Bytes that the masks and the held values take beside the model."""
        return sum(t.numel() * t.element_size() for t in [*self._held, *(frozen for _, frozen in self._parts)])


def _hide(parameter: Any, frozen: torch.Tensor) -> RemovableHandle:
    """Zero the gradient of the frozen entries as soon as it exists."""
    handle: RemovableHandle = parameter.register_hook(lambda gradient: gradient.masked_fill(frozen, 0))
    return handle
