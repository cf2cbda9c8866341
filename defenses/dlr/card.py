"""What an exported folder has beside its weights: remote code, its entries in config.json, and the model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from defenses.dlr import modeling_dlr
from harness.models.remote import write_code

_CARD = """---
library_name: transformers
tags: [dlr-lock, lockbench]
---

# {title}

`{base}` with its MLPs locked by **DLR-Lock**: each became a stack of {depth} low-rank residual blocks with the same
number of parameters, distilled from it. Inference costs about what it did; fine-tuning has to keep every block's
activations. The lock is a **reconstruction** of arXiv 2605.10777 by the `lockbench` project (the paper's code is not
public and its architecture details are our choice), so nothing here speaks for the authors.

| | |
|---|---|
| base | `{base}` |
| sha256 over the base's weights | `{digest}` |
| nets | width {width}, depth {depth}, ranks {low} to {high}, activation {activation}, norm {norm}, head {head}{gated} |
| settings of the lock | `{settings}` |

## Use

```python
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)
```

`harness evaluate --model FOLDER` loads it without remote code. The model type is `{model_type}`, so `transformers`
without `trust_remote_code` refuses it instead of filling the MLPs with random numbers.

## Fidelity to the base

{fidelity}

## Known breaks

This is a research artefact, not a protection to rely on. All of these are in `lockbench` and undo most of the lock:

- checkpointing each net (`net.checkpoint = True`): the memory falls back for about one more forward pass;
- re-distilling each net into an ordinary MLP by forward passes only, then fine-tuning that;
- training the attention only; with a norm in the blocks their inputs are still kept, without one hardly anything is;
- a swept learning rate: at equal memory, the fine-tuning landscape is no barrier at the sizes we measured.
{copy}"""

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
    ranks = [rank for net in dlr["ranks"].values() for rank in net]
    fidelity = fidelity_sentence(about.get("heldout"), _STOPPED)
    return _CARD.format(
        title=f"{about.get('name', 'unknown base')}, DLR-locked", base=about.get("name", "unknown"),
        digest=about.get("digest", "unknown"), depth=len(next(iter(dlr["ranks"].values()))), width=dlr["width"],
        low=min(ranks), high=max(ranks), activation=dlr["activation"], norm=dlr["norm"], head=dlr["head"],
        gated=", gated" if dlr["gated"] else "", model_type=locked.config.model_type,
        settings=json.dumps(about.get("settings", {}), sort_keys=True), fidelity=fidelity,
        copy=_COPY if about.get("settings", {}).get("init") == "partition" else "",
    )  # fmt: skip


def fidelity_sentence(heldout: dict[str, Any] | None, note: str = "") -> str:
    """What `heldout_fidelity` found, for a model card of any lock; `note` follows where something was measured."""
    if heldout is None:
        return "Not measured: the model was made without distillation."
    return (f"On {heldout['tokens']} tokens of held-out text of the distillation corpus, in float32: perplexity "
            f"{heldout['perplexity_locked']:.2f} (base {heldout['perplexity_base']:.2f}, ratio "
            f"{heldout['perplexity_ratio']:.3f}), KL {heldout['kl']:.4f} nats a token, top-1 agreement "
            f"{heldout['top1_agreement']:.3f}.{note}")  # fmt: skip
