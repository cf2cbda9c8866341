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
        use="It loads as any model of its architecture: `AutoModelForCausalLM.from_pretrained(FOLDER)`.",
        fidelity=fidelity_sentence(about["heldout"]), breaks=_BREAKS))  # fmt: skip
