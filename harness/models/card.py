"""The model card of a released folder: one frame for every lock, in the form that model hubs read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MARKS = ("<!-- lockbench:measured:begin -->", "<!-- lockbench:measured:end -->")
"""What `harness card` writes lies between these."""
RESEARCH = "This is a research artefact, not a protection to rely on."


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a lock says of a model that it made; every text is Markdown."""

    title: str
    tags: Sequence[str]
    intro: str
    """What was locked, how, and whose work that is."""
    base: str
    """Name of the base."""
    digest: str
    """sha256 over the base's weights."""
    rows: Mapping[str, str] = field(default_factory=dict)
    """More rows of the table, by title."""
    settings: Mapping[str, Any]
    """Of the lock."""
    use: str | None = None
    """How it is loaded, where that needs saying at length."""
    fidelity: str | None = None
    """How close it is to the base; None: not known."""
    breaks: str
    """What undoes the lock, and where that is to be had."""

    def __str__(self) -> str:
        """The whole card."""
        rows = {"base": f"`{self.base}`", "sha256 over the base's weights": f"`{self.digest}`", **self.rows,
                "settings of the lock": f"`{json.dumps(self.settings, sort_keys=True)}`"}  # fmt: skip
        table = "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])
        front = f"---\nlibrary_name: transformers\ntags: [{', '.join(self.tags)}]\n---"
        parts = [front, f"# {self.title}", self.intro.strip(), table]
        parts += ["## Use", self.use.strip()] if self.use else []
        parts += ["## Fidelity to the base", self.fidelity.strip()] if self.fidelity else []
        parts += ["## Known breaks", f"{RESEARCH} {self.breaks.strip()}"]
        return "\n\n".join(parts) + "\n"


def fidelity_sentence(heldout: Mapping[str, Any] | None, note: str = "") -> str:
    """What a lock's `heldout_fidelity` found; `note` follows where something was measured."""
    if heldout is None:
        return "Not measured: the model was made without distillation."
    return (f"On {heldout['tokens']} tokens of held-out text of the distillation corpus, in float32: perplexity "
            f"{heldout['perplexity_locked']:.2f} (base {heldout['perplexity_base']:.2f}, ratio "
            f"{heldout['perplexity_ratio']:.3f}), KL {heldout['kl']:.4f} nats a token, top-1 agreement "
            f"{heldout['top1_agreement']:.3f}.{note}")  # fmt: skip


def remote_code_use(dtype: str = "") -> str:
    """How plain `transformers` loads a folder that brings its own code."""
    also = f', dtype="{dtype}"' if dtype else ""
    return ("```python\nfrom transformers import AutoModelForCausalLM\n"
            f"model = AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True{also})\n```\n\n"
            "`harness evaluate --model FOLDER` loads it without remote code.")  # fmt: skip


def from_block(block: Mapping[str, Any]) -> str:
    """A card of a locked folder whose lock writes none, from the `lockbench` block of its config.json."""
    name, base = str(block["defense"]), str(block.get("base_name", "unknown"))
    return str(Card(
        title=f"{base}, locked by {name}", tags=["lockbench"], intro=f"`{base}` locked by `{name}` of `lockbench`.",
        base=base, digest=str(block.get("base_digest", "unknown")), settings=block["settings"],
        breaks="`harness list attacks` names the attacks that it should face."))  # fmt: skip


def with_measured(card: str, measured: str) -> str:
    """`card` with the measured part replaced, or added at its end.

    Args:
        card: Markdown.
        measured: Markdown without the marks.
    """
    begin, end = MARKS
    part = f"{begin}\n\n{measured.strip()}\n\n{end}\n"
    head, found, rest = card.partition(begin)
    if not found:
        return f"{card.rstrip()}\n\n{part}"
    return head + part + rest.partition(end)[2].removeprefix("\n")
