"""The clean student of `distil_student`: built from the config, filled from the teacher, taught by its logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from attacks.share import Share
from harness.divergence import divergence
from harness.finetune import task_blocks
from harness.meters.memory import module_bytes
from harness.models.families import find_mlps
from harness.packing import PackedBlocks
from harness.sampling import sample_blocks
from harness.seeds import derive
from harness.train_settings import TrainSettings
from harness.training import Batch, train

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from attacks.distil_student import DistilStudentSettings
    from harness.plugins import AttackContext

HELDOUT_BLOCKS = 16
"""Blocks on which the student is never trained, for the reported divergence; never more than a quarter of all."""


def build_student(model: PreTrainedModel, init: str, context: AttackContext) -> tuple[PreTrainedModel, list[str]]:
    """A model of the base's architecture, as the locked model's config describes it, fp32 on the device.

    The architecture is the transformers class that the locked model's class is or derives from. With `init=reuse`, a
    tensor outside the MLPs is copied where the locked model has one of the same name and shape in a module of the same
    class: a wrapper that a lock put around a layer gives the same name another meaning.

    Returns:
        The student, and the names of the copied tensors.
    """
    kind: Any = next((cls for cls in type(model).__mro__ if cls.__module__.startswith("transformers.models.")),
                     type(model))  # fmt: skip
    known = set(kind.config_class().to_dict()) - {"model_type", "architectures", "dtype", "transformers_version"}
    values = {key: value for key, value in model.config.to_dict().items() if key in known}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(context.seed, "student"))
        student: Any = kind(kind.config_class(**values))
    student.generation_config = model.generation_config
    reused = _reuse(model, student) if init == "reuse" else []
    return student.to(context.device), reused


def same_form(model: nn.Module, student: nn.Module) -> bool:
    """Whether both have the same module tree and shapes."""
    trees = [{name: type(part) for name, part in one.named_modules() if name} for one in (model, student)]
    shapes = [{name: value.shape for name, value in one.named_parameters()} for one in (model, student)]
    return trees[0] == trees[1] and shapes[0] == shapes[1]


def _reuse(model: nn.Module, student: nn.Module) -> list[str]:
    """Copy what both have in the same form, MLPs aside; returns the names."""
    mlps = {id(p) for site in find_mlps(student) for p in site.module.parameters()}
    theirs, kinds = dict(model.named_parameters()), {name: type(part) for name, part in model.named_modules()}
    copied = []
    for name, p in student.named_parameters():
        parent, found = name.rpartition(".")[0], theirs.get(name)
        same = found is not None and found.shape == p.shape and kinds[parent] is type(student.get_submodule(parent))
        if same and id(p) not in mlps:
            p.data.copy_(found.detach())  # type: ignore[union-attr]
            copied.append(name)
    return copied


class Distillation:
    """End-to-end KL to the teacher on the task's text and on text that the teacher samples; on the current stage."""

    def __init__(self, teacher: PreTrainedModel, student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase,
                 settings: DistilStudentSettings, context: AttackContext) -> None:  # fmt: skip
        self.teacher, self.student, self.settings, self.context = teacher.eval(), student, settings, context
        self.share = Share(context.meter)
        self.forward_flops = 2 * (teacher.num_parameters() + student.num_parameters())
        sampled = self.share.affordable(2 * teacher.num_parameters(), fraction=0.25)
        text = task_blocks(tokenizer, context, settings.block_size)
        blocks = torch.cat([text, sample_blocks(teacher, min(settings.sampled_tokens, sampled), settings.block_size,
                                                context)])  # fmt: skip
        blocks = blocks[np.random.default_rng(derive(context.seed, "student", "text")).permutation(len(blocks))]
        afford = self.share.affordable(self.forward_flops, fraction=0.1) // (2 * settings.block_size)
        count = min(HELDOUT_BLOCKS, len(blocks) // 4, afford)
        self.heldout, self.blocks, self.tokens = blocks[:count], blocks[count:], blocks.numel()

    def run(self) -> dict[str, Any]:
        """Train the student in place; JSON for the report: divergence before and after, steps and tokens."""
        before = self.error()
        steps = self._train()
        return {"kl_start": before, "kl": self.error(), "distil_steps": steps, "tokens": self.tokens}

    def error(self) -> float | None:
        """KL on the held-out blocks, nats a token; None where the budget affords none."""
        found = []
        size = self.settings.distil_batch_size
        for start in range(0, len(self.heldout), size):
            ids = self.heldout[start : start + size]
            with self.context.meter.measure(tokens=ids.numel(), key=("student", id(self), ids.shape)), torch.no_grad():
                ids = ids.to(self.context.device)
                kl = divergence(_logits(self.teacher, ids), _logits(self.student.eval(), ids))
                found.append((len(ids), float(kl)))
        return sum(n * kl for n, kl in found) / sum(n for n, _ in found) if found else None

    def _train(self) -> int:
        settings = self.settings
        later = self.heldout.numel()  # the second measurement
        flops = 2 * self.teacher.num_parameters() + 6 * self.student.num_parameters()
        tokens = self.share.affordable(flops, reserve=later, reserve_flops=later * self.forward_flops)
        size = settings.distil_batch_size * settings.block_size
        steps = min(settings.distil_steps, tokens // size, self.share.steps())
        if not steps:
            return 0

        def loss(student: nn.Module, batch: Batch) -> torch.Tensor:
            with torch.no_grad():
                target = _logits(self.teacher, batch["input_ids"])
            return divergence(target, _logits(student, batch["input_ids"]))

        seed = derive(self.context.seed, "distil")
        batches = PackedBlocks(self.blocks.flatten().numpy(), block_size=settings.block_size,
                               batch_size=settings.distil_batch_size, seed=seed)  # fmt: skip
        knobs = TrainSettings(learning_rate=settings.distil_learning_rate, max_steps=steps, optim=settings.distil_optim,
                              per_device_train_batch_size=settings.distil_batch_size, block_size=settings.block_size,
                              eval_points=0, save_steps=settings.save_steps)  # fmt: skip
        return train(self.student.requires_grad_(True), batches, knobs, self.context, label="distil", loss_fn=loss,
                     stop=lambda _: self.share.late(), beside_bytes=module_bytes(self.teacher)).steps  # fmt: skip


def _logits(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return logits
