"""`undo_pmp`: recover PMP's private mask from the released weights, give the complement what it lacks, fine-tune.

The secret is never read. The recovered mask goes back with the result, and the benchmark compares it with the secret
after the attack. On a model that PMP did not lock this is plain full fine-tuning, so the reference is fair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from attacks.full import UndoneSettings
from harness.errors import Unavailable
from harness.plugins import Attack, AttackContext, Attacked, Knowledge, Released

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from attacks.recover_mask import Found
    from defenses.pmp.mask import Mask


class UndoPMPSettings(UndoneSettings):
    """`full`'s settings for the fine-tuning, how the mask is read off, and what is done with it."""

    method: Literal["auto", "magnitude", "init_match", "distribution", "gradient"] = "auto"
    """`magnitude`: the complement was shrunk; `init_match`: it equals initial weights drawn from a guessed seed;
    `distribution`: it still looks like initial weights; `gradient`: the attacker's own ticket; `auto`: the first of
    the first three that the weights support."""
    guessed_seeds: tuple[int, ...] = (*range(32), 42, 123, 1234, 1337, 2024, 2025)
    """Root seeds tried by `init_match`, which draws the initial weights of each: those that people give. An empty list
    assumes that the seed cannot be guessed."""
    rho: float | None = Field(None, gt=0, lt=1)
    """Share of the ticket, for `gradient` and `distribution`; null reads it in the release's config, which names the
    lock's settings."""
    gradient_batches: int = Field(8, gt=0)
    """Batches of the task's text over which `gradient` averages."""
    complement: Literal["keep", "reinit", "pretrain"] = "pretrain"
    """What happens to the recovered complement first: nothing; fresh initial values; training on public text with the
    ticket held."""
    undo_steps: int = Field(100, gt=0)
    """Steps of `pretrain`, on the text of `python_docs`."""
    trained: Literal["ticket", "all"] = "all"
    """What the fine-tuning then trains."""


class UndoPMP(Attack):
    """Read PMP's private mask off the weights, train the complement on public text, then fine-tune everything."""

    knowledge = Knowledge.CODE
    Settings = UndoPMPSettings
    settings: UndoPMPSettings

    def attack(self, released: Released, context: AttackContext) -> Attacked:
        """See `harness.plugins.Attack`.

        Raises:
            Unavailable: `method=init_match`, and no guessed seed is right.
        """
        from attacks.common import finish, prepare
        from attacks.ticket import finetune_ticket
        from defenses.pmp.mask import pack, unpack

        def undone(settings: UndoPMPSettings) -> tuple[PreTrainedModel, dict[str, Any]]:
            model = prepare(released.model, context)
            if (released.lock or {}).get("defense") != "pmp":
                return model, {}
            with context.meter.stage("undo"):
                mask, found = _recover(released, settings, context)
                found |= {"ticket": sum(int(part.sum()) for part in mask.values()),
                          "covered": sum(part.numel() for part in mask.values())}  # fmt: skip
                return model, {**found, **_prepare_complement(released, mask, settings, context), "guess": pack(mask)}

        model, report = context.undo(undone, self.settings)
        guess = report.pop("guess", None)
        chosen = unpack(guess, model) if guess and self.settings.trained == "ticket" else None
        training, targets = finetune_ticket(model, released.tokenizer, chosen, self.settings, context)
        return Attacked(model=finish(model), training=training, targets=targets, report=report, guess=guess)


def _recover(released: Released, settings: UndoPMPSettings, context: AttackContext) -> Found:
    from attacks import recover_mask as recover

    model, method = released.model, settings.method
    rho = settings.rho or float((released.lock or {})["settings"]["rho"])
    if method == "gradient":
        mask, report = recover.by_gradient(model, released.tokenizer, rho, settings.gradient_batches,
                                           settings, context)  # fmt: skip
        return mask, {"method": method, **report}
    scale = recover.complement_scale(model) if method in ("auto", "magnitude") else 1.0
    if method == "magnitude" or scale < recover.SHRUNK:
        mask, report = recover.by_width(model, scale, everything=True)
        return mask, {"method": "magnitude", **report}
    if method in ("auto", "init_match"):
        matched = recover.by_initial_weights(model, settings.guessed_seeds)
        if matched is not None:
            return matched[0], {"method": "init_match", **matched[1]}
        if method == "init_match":
            raise Unavailable(f"init_match: none of guessed_seeds={list(settings.guessed_seeds)} gave the "
                              "initial weights of this release")  # fmt: skip
    mask, report = recover.by_width(model, 1.0, everything=False, rho=rho)
    return mask, {"method": "distribution", **report}


def _prepare_complement(
    released: Released, mask: Mask, settings: UndoPMPSettings, context: AttackContext
) -> dict[str, Any]:
    from attacks.complement import pretrain_complement, redraw_complement

    if settings.complement == "reinit":
        redraw_complement(released.model, mask, context.seed)
    if settings.complement == "pretrain":
        return pretrain_complement(released.model, released.tokenizer, mask, settings, context)
    return {}
