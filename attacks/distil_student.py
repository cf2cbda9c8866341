"""`distil_student`: distil the whole locked model into a clean student of the base's architecture, then fine-tune that.

Where `redistill` undoes one lock module by module, this needs to know nothing but the architecture the config names:
whatever a lock put in, or did to the weights, stays behind in the teacher, which is only ever run forward. On a model
that is no locked one this is plain full fine-tuning, so the reference is fair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from attacks.full import UndoneSettings
from harness.plugins import Attack, AttackContext, Attacked, Knowledge, Released

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class DistilStudentSettings(UndoneSettings):
    """`full`'s settings for the fine-tuning, and how the student is made."""

    init: Literal["reuse", "random"] = "reuse"
    """`reuse` takes over attention, embeddings and norms that the lock left in their form; `random` takes nothing."""
    distil_steps: int = Field(400, ge=0)
    """Optimizer steps of the distillation; under a budget at most half of what is left."""
    distil_learning_rate: float = Field(3e-3, gt=0)
    """Peak learning rate of the distillation (cosine, warm-up as in the fine-tuning)."""
    distil_optim: Literal["muon", "adamw_torch"] = "muon"
    """Optimizer of the distillation."""
    distil_batch_size: int = Field(8, gt=0)
    """Sequences a step of the distillation."""
    sampled_tokens: int = Field(65536, ge=0)
    """Tokens sampled from the locked model and added to the task's text, so that the student is right elsewhere too."""


class DistilStudent(Attack):
    """Distil the locked model into a fresh model of the base's architecture, then fine-tune everything."""

    knowledge = Knowledge.FAMILY
    Settings = DistilStudentSettings
    settings: DistilStudentSettings

    def attack(self, released: Released, context: AttackContext) -> Attacked:
        """See `harness.plugins.Attack`."""
        from attacks.common import finish, unfreeze
        from harness.finetune import finetune

        student, report = context.undo(lambda seen: _distilled(released, seen, context), self.settings)
        if student is not released.model:
            released.model.to(device="cpu")  # the teacher has done its part
        targets = unfreeze(student)
        training = finetune(student, released.tokenizer, context, self.settings)
        return Attacked(model=finish(student), training=training, targets=targets, report=report)


def _distilled(
    released: Released, settings: DistilStudentSettings, context: AttackContext
) -> tuple[PreTrainedModel, dict[str, Any]]:
    from attacks.common import prepare
    from attacks.student import Distillation, build_student, same_form

    model = prepare(released.model, context)
    student, reused = build_student(model, settings.init, context)
    unlocked = released.lock is None or released.lock["defense"] == "none"
    if unlocked and same_form(model, student):
        return model, {"reused": None, "distil_steps": 0}
    with context.meter.stage("undo"):
        work = Distillation(model, student, released.tokenizer, settings, context)
        return student, {"reused": reused, **work.run()}
