"""What an exported folder has beside its weights: remote code, its entries in config.json, and the model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from defenses.specdef_reparam import modeling_specdef_reparam
from harness.models.card import Card, remote_code_use
from harness.models.remote import write_code

_INTRO = """\
`{base}` with {count} linear layers locked by **SpecDef**'s spectral reparameterisation: the largest singular values of
each were multiplied by {alpha:g} and an extra linear layer after it divides them again. The function is the base's up
to rounding; naive fine-tuning diverges. The lock is a **reconstruction** of arXiv 2602.18868 by the `lockbench` project
(the authors' code is not public), so nothing here speaks for the authors.
"""
_WIDER = """ **Run it in {dtype} or wider**: in a narrower type the
rounding errors of the inflated layer pass the extra layer undivided."""
_BREAKS = """\
These are in `lockbench` (`undo_specdef_reparam`):

- multiplying the two layers of a pair gives the base's matrix back, in seconds and without data; pairs are found
  without their names;
- freezing the extra layer, or giving it a learning rate divided by the inflation, which the weights show.
"""


def export(locked: Any, folder: Path) -> None:
    """Write the remote code, complete config.json (kept entries stay), and README.md.

    Args:
        locked: a model made by this defense (`SpecDef<Base>`).
        folder: where its weights and tokenizer are or will be.
    """
    write_code(locked, folder, Path(modeling_specdef_reparam.__file__))
    (folder / "README.md").write_text(card(locked))


def card(locked: Any) -> str:
    """The model card, in markdown."""
    value = locked.config.specdef_reparam
    about, settings, heldout = value["base"], value["base"]["settings"], value["base"]["heldout"]
    base, dtype = about["name"], settings["dtype"]
    return str(Card(
        title=f"{base}, SpecDef-reparameterised", tags=["specdef", "lockbench"], base=base, digest=about["digest"],
        intro=_INTRO.format(base=base, count=len(value["layers"]), alpha=settings["alpha"]), settings=settings,
        rows={"locked layers": ", ".join(f"`{name}`" for name in value["layers"])},
        use=remote_code_use(dtype) + _WIDER.format(dtype=dtype), breaks=_BREAKS,
        fidelity=f"On {heldout['n_tokens']} tokens of held-out text, unmerged, in {dtype}: KL {heldout['kl']:.2g} nats "
        f"a token, top-1 agreement {heldout['top1_agreement']:.4f}."))  # fmt: skip
