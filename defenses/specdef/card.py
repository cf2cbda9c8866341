"""The model card of an exported SpecDef folder; the lock only changes values, so nothing else is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.models.card import Card, fidelity_sentence

_INTRO = """\
`{name}` locked by **SpecDef** (spectral deformation; workshop paper of 2025, Algorithm 1): it was trained to keep its
function while the {k} largest singular values of every weight matrix grow, so that gradient descent needs a smaller
learning rate and more steps. This is the `lockbench` project's own implementation; no code of the authors was
available.
"""
_BREAKS = """\
Both of these are in `lockbench`:

- outlying singular values show in the weights: clip them, repair the function by a short distillation from the locked
  model, then fine-tune (`undo_specdef`);
- a swept learning rate: plain fine-tuning at a lower rate.
"""


def export(locked: Any, folder: Path) -> None:
    """Write README.md; without the lock's own entry in the config (a model loaded and saved by others), nothing."""
    about: dict[str, Any] | None = getattr(locked.config, "specdef", None)
    if about is not None:
        (folder / "README.md").write_text(card(about))


def card(about: dict[str, Any]) -> str:
    """The model card, in markdown, from `config.specdef`."""
    name, settings, (before, after) = about["name"], about["settings"], about["mean_top"]
    return str(Card(
        title=f"{name}, SpecDef-locked", tags=["specdef-lock", "lockbench"], base=name, digest=about["digest"],
        intro=_INTRO.format(name=name, k=settings["k"]), settings=settings,
        rows={f"mean of the top {settings['k']} singular values": f"{before:.2f} before, {after:.2f} after"},
        use=f"It loads as any model of its architecture: {_auto(about)}.",
        fidelity=_fidelity(about["heldout"]), breaks=_BREAKS))  # fmt: skip


def _fidelity(heldout: dict[str, Any]) -> str:
    if "accuracy_base" not in heldout:
        return fidelity_sentence(heldout)
    return (f"On {heldout['items']} held-out items of the classifier's own task, in float32: accuracy "
            f"{heldout['accuracy_locked']:.3f} (base {heldout['accuracy_base']:.3f}), KL {heldout['kl']:.4f} nats an "
            f"item, top-1 agreement {heldout['top1_agreement']:.3f}.")  # fmt: skip


def _auto(about: dict[str, Any]) -> str:
    return "transformers' class for its kind" if "accuracy_base" in about["heldout"] else (
        "`AutoModelForCausalLM.from_pretrained(FOLDER)`")  # fmt: skip
