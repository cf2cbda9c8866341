"""Several locks on one model, applied in order: the defense called `a+b`. Imports no torch.

Its settings are those of its parts under their names (`--set defense.dlr.depth=16`), so spec, hash, record and cache
need nothing new, and a locked folder is rebuilt by the same parts in the same order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import create_model

from harness.errors import UsageError
from harness.kinds import KINDS
from harness.plugins import Defense, LockContext, Locked, Released
from harness.seeds import derive
from harness.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SIGN = "+"
"""Between the names of the parts."""


class Composition(Defense):
    """Several locks, one after the other."""

    members: ClassVar[Mapping[str, type[Defense]]]
    """The parts by name, in the order in which they lock."""

    @property
    def parts(self) -> dict[str, Defense]:
        """The parts with their settings."""
        return {name: kind(getattr(self.settings, name)) for name, kind in self.members.items()}

    def lock(self, base: Released, context: LockContext) -> Locked:
        """Each part locks what the one before made, with a seed and a folder of its own.

        Raises:
            UsageError: two parts' secrets have a tensor of one name.
        """
        from harness.models.digest import weights_digest

        current, secret, report, stored = base, dict[str, Any](), dict[str, Any](), set[str]()
        for name, part in self.parts.items():
            folder = context.folder / name
            folder.mkdir(parents=True, exist_ok=True)
            own = dataclasses.replace(context, seed=derive(context.seed, name), folder=folder)
            locked = part.lock(current, own)
            if both := secret.keys() & (locked.secret or {}):
                raise UsageError(f"{SIGN.join(self.members)}: two secrets have a tensor {sorted(both)[0]!r}")
            secret |= locked.secret or {}
            report[name] = locked.report
            stored |= {locked.dtype} if locked.dtype else set()
            current = dataclasses.replace(base, model=locked.model, digest=weights_digest(locked.model),
                                          name=f"{current.name} locked by {name}")  # fmt: skip
        dtype = next((wide for wide in ("float32", "bfloat16", "float16") if wide in stored), None)
        return Locked(model=current.model, secret=secret or None, report=report, dtype=dtype)

    def rebuild(self, model: PreTrainedModel) -> PreTrainedModel:
        """Every part's rebuild, in the same order."""
        for part in self.parts.values():
            model = part.rebuild(model)
        return model

    def export(self, locked: PreTrainedModel, folder: Path) -> None:
        """Every part's export; their model cards follow one another in README.md.

        Plain `transformers` loads the folder when the parts export by `harness.models.remote`.
        """
        card, cards = folder / "README.md", []
        for part in self.parts.values():
            card.unlink(missing_ok=True)
            part.export(locked, folder)
            if card.exists():
                cards.append(card.read_text())
        if cards:
            rest = [text.partition("\n---\n")[2] if text.startswith("---\n") else text for text in cards[1:]]
            card.write_text("\n".join([cards[0], *rest]))


def compose(kinds: Mapping[str, type[Defense]]) -> type[Composition]:
    """The class of the defense whose parts are `kinds`, in order.

    Raises:
        UsageError: a part cannot do with its default settings, or pretrains a model: what the whole is to be compared
            with is then not the base, and a control of a composition there is none.
    """
    if own := [name for name, kind in kinds.items() if kind.pretrains]:
        raise UsageError(f"defense {SIGN.join(kinds)!r}: {own[0]} pretrains a model, and so cannot be one of several")
    fields: dict[str, Any] = {name: (kind.Settings, kind.Settings.parse({}, f"defense.{name}"))
                              for name, kind in kinds.items()}  # fmt: skip
    settings = create_model("CompositionSettings", __base__=Settings, **fields)
    structural = any(kind.structural for kind in kinds.values())
    together = tuple(kind for kind in KINDS if all(kind in part.kinds for part in kinds.values()))
    return type("Composition", (Composition,), {"Settings": settings, "members": dict(kinds), "kinds": together,
                                                "structural": structural,
                                                "__doc__": f"{', then '.join(kinds)}, on one model."})  # fmt: skip
