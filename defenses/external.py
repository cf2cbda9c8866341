"""A locked checkpoint that others released (TAR, RepNoise, a vendor's, ...): it is taken as it is, and attacked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from harness.errors import UsageError
from harness.models.resolve import local_folder
from harness.plugins import Defense, LockContext, Locked, Released
from harness.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROBED = 4
"""Documents on which the two tokenizers must agree."""


class ExternalSettings(Settings):
    """Which checkpoint; it must be a locked version of the spec's model, with the same tokens."""

    path: str = Field(min_length=1)
    """The locked checkpoint: a local folder, or a hub id (then with `revision`)."""
    revision: str | None = Field(None, pattern=r"^[0-9a-f]{40}$")
    """Commit of a hub id, all 40 hex digits: a branch would be another model tomorrow."""
    label: str = ""
    """What tables call it, for example TAR; empty: external."""
    trust_remote_code: bool = False
    """Allow the checkpoint to bring its own Python code."""
    digest: str | None = None
    """sha256 over the files of a local folder; filled in."""
    lock: dict[str, Any] | None = None
    """`defense` and `settings`, where `harness lock` wrote the folder; filled in."""

    @model_validator(mode="before")
    @classmethod
    def _look(cls, values: Any) -> Any:
        """Fill in what a local folder says of itself; a spec that names the digest is taken at its word."""
        if not isinstance(values, dict) or not isinstance(values.get("path"), str) or values.get("digest"):
            return values
        folder = local_folder(values["path"]) if values["path"] else None
        if folder is not None:
            return {**values, **_described(folder)}
        if values["path"] and not values.get("revision"):
            raise UsageError(f"defense.path={values['path']!r}: no such folder; a hub id needs its commit too, "
                             "--set defense.revision=<40 hex digits>")  # fmt: skip
        return values


class External(Defense):
    """A locked checkpoint released by others: a folder or hub id, whose cost of locking is not known."""

    Settings: ClassVar[type[Settings]] = ExternalSettings
    structural: ClassVar[bool] = True  # when it is one of `harness lock`
    unbilled: ClassVar[str | None] = "made elsewhere: what the locking cost is not known"
    settings: ExternalSettings

    def lock(self, base: Released, context: LockContext) -> Locked:
        """Load the checkpoint; `base` is only compared with it.

        Raises:
            UsageError: it is not there or not what the spec names, it does not pass the gate, its architecture is not
                one of transformers, or its tokens are not the base's.
        """
        from harness.models.load import load_model
        from harness.models.save import base_of

        chosen, folder = self.settings, local_folder(self.settings.path)
        if chosen.digest is not None and (folder is None or _described(folder)["digest"] != chosen.digest):
            raise UsageError(f"defense.path={chosen.path!r} is not the checkpoint that the spec names (sha256 "
                             f"{chosen.digest[:16]}...)")  # fmt: skip
        found = load_model(chosen.path, known={}, dtype="auto", device=context.device, revision=chosen.revision,
                           trust_remote_code=chosen.trust_remote_code)  # fmt: skip
        base_of(found.model)
        _check_tokens(base, found, context)
        return Locked(model=found.model, dtype=found.model.config.stored_dtype, report={"digest": found.digest})

    def rebuild(self, model: PreTrainedModel) -> PreTrainedModel:
        """What the lock of the folder does, where `harness lock` wrote it; else nothing."""
        inner = self._inner()
        return inner.rebuild(model) if inner else model

    def export(self, locked: PreTrainedModel, folder: Path) -> None:
        """What the lock of the folder writes, where `harness lock` wrote it; else nothing."""
        if inner := self._inner():
            inner.export(locked, folder)

    def disclosed(self, lock: dict[str, Any] | None) -> dict[str, Any] | None:
        """The lock that the folder itself names: an attacker sees that, and not that we call it external."""
        return {**(lock or {}), **self.settings.lock} if self.settings.lock else lock

    def _inner(self) -> Defense | None:
        from harness import registry

        if self.settings.lock is None:
            return None
        kind = registry.defenses().get(str(self.settings.lock["defense"]))
        return kind(kind.Settings.parse(self.settings.lock["settings"], "defense.lock.settings"))


def _described(folder: Path) -> dict[str, Any]:
    """`digest` and `lock` of a folder that passes the gate."""
    from harness.models.digest import files_digest
    from harness.models.gate import check_folder, read_json

    check_folder(folder)
    block = read_json(folder / "config.json").get("lockbench")
    named = isinstance(block, dict) and {"defense", "settings"} <= block.keys()
    lock = {key: block[key] for key in ("defense", "settings")} if isinstance(block, dict) and named else None
    return {"digest": files_digest(folder), "lock": lock}


def _check_tokens(base: Released, found: Released, context: LockContext) -> None:
    """Scores are compared item by item and KL token by token, so the tokens must be the same."""
    rows = [side.model.get_output_embeddings().weight.shape[0] for side in (base, found)]
    texts = list(context.corpus("heldout"))[:PROBED]
    same = all(base.tokenizer.encode(text) == found.tokenizer.encode(text) for text in texts)
    if rows[0] != rows[1] or not same:
        what = f"{rows[1]} tokens for {rows[0]}" if rows[0] != rows[1] else "another tokenizer"
        raise UsageError(f"{found.name} is no locked version of {base.name}: it has {what}; give its base by --model")
