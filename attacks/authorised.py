"""`authorised`: fine-tuning by the owner, who has the secret mask. A ceiling, never ranked.

Only the ticket trains: linear layers by the mask, tensors that the mask does not cover whole. On a model without a lock
this is plain full fine-tuning.
"""

from __future__ import annotations

from attacks.full import UndoneSettings
from harness.errors import Unavailable
from harness.plugins import Attack, AttackContext, Attacked, Knowledge, Released


class AuthorisedSettings(UndoneSettings):
    """`full`'s settings."""


class Authorised(Attack):
    """Fine-tune the secret ticket only, as the owner of a model locked by PMP does (upper bound)."""

    knowledge = Knowledge.SECRET
    Settings = AuthorisedSettings
    settings: AuthorisedSettings

    def attack(self, released: Released, context: AttackContext) -> Attacked:
        """See `harness.plugins.Attack`.

        Raises:
            Unavailable: the model is locked, and there is no secret.
        """
        from attacks.common import finish, prepare
        from attacks.ticket import finetune_ticket

        mask = None
        if released.lock is not None:
            if context.secret is None:
                raise Unavailable(f"authorised needs the secret of the lock, and {released.lock['defense']} gave none")
            from safetensors.torch import load_file

            from defenses.pmp.mask import unpack

            mask = unpack(load_file(context.secret), released.model)
        model = prepare(released.model, context)
        training, targets = finetune_ticket(model, released.tokenizer, mask, self.settings, context)
        report = {"ticket": sum(int(part.sum()) for part in mask.values())} if mask else {}
        return Attacked(model=finish(model), training=training, targets=targets, report=report)
