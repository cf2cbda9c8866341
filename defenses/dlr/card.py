"""What an exported folder has beside its weights: remote code, its entries in config.json, and the model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from defenses.dlr import modeling_dlr
from harness.models.card import Card, fidelity_sentence, remote_code_use
from harness.models.remote import write_code

_INTRO = """\
`{base}` with its MLPs locked by **DLR-Lock**: each became a stack of {depth} low-rank residual blocks with the same
number of parameters, distilled from it. Inference costs about what it did; fine-tuning has to keep every block's
activations. The lock is a **reconstruction** of arXiv 2605.10777 by the `lockbench` project (the paper's code is not
public and its architecture details are our choice), so nothing here speaks for the authors.
"""
_REFUSED = """ The model type is `{model_type}`, so `transformers`
without `trust_remote_code` refuses it instead of filling the MLPs with random numbers."""
_BREAKS = """\
All of these are in `lockbench` and undo most of the lock:

- checkpointing each net (`net.checkpoint = True`): the memory falls back for about one more forward pass;
- re-distilling each net into an ordinary MLP by forward passes only, then fine-tuning that;
- training the attention only; with a norm in the blocks their inputs are still kept, without one hardly anything is;
- a swept learning rate: at equal memory, the fine-tuning landscape is no barrier at the sizes we measured.
"""
_COPY = """- **This checkpoint was initialised by `partition`: its blocks are slices of the base's MLPs, and putting
  them side by side again recovers most of an ordinary MLP with no training at all.**
"""
_STOPPED = " These tokens also decided when training stopped."


def export(locked: Any, folder: Path) -> None:
    """Write the remote code, complete config.json (kept entries stay), and README.md.

    Args:
        locked: a model made by this defense (`DLR<Base>`).
        folder: where its weights and tokenizer are or will be.
    """
    write_code(locked, folder, Path(modeling_dlr.__file__))
    (folder / "README.md").write_text(card(locked))


def card(locked: Any) -> str:
    """The model card, in markdown."""
    dlr = locked.config.dlr
    about = dlr.get("base", {})
    base, settings = about.get("name", "unknown"), about.get("settings", {})
    ranks, depth = [rank for net in dlr["ranks"].values() for rank in net], len(next(iter(dlr["ranks"].values())))
    nets = (f"width {dlr['width']}, depth {depth}, ranks {min(ranks)} to {max(ranks)}, activation {dlr['activation']}, "
            f"norm {dlr['norm']}, head {dlr['head']}{', gated' if dlr['gated'] else ''}")  # fmt: skip
    return str(Card(
        title=f"{base}, DLR-locked", tags=["dlr-lock", "lockbench"], intro=_INTRO.format(base=base, depth=depth),
        base=base, digest=about.get("digest", "unknown"), rows={"nets": nets}, settings=settings,
        use=remote_code_use() + _REFUSED.format(model_type=locked.config.model_type),
        fidelity=fidelity_sentence(about.get("heldout"), _STOPPED),
        breaks=_BREAKS + (_COPY if settings.get("init") == "partition" else "")))  # fmt: skip
