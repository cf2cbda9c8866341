"""Undoing DLR-Lock by module-wise re-distillation; what `redistill` does before it fine-tunes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from attacks.share import Share
from attacks.swiglu import Fit, SwiGLU, own_gates
from defenses.dlr.distill import Students, relative_errors
from harness.bill import Bill
from harness.divergence import divergence
from harness.errors import UsageError
from harness.finetune import task_blocks
from harness.meters.memory import module_bytes
from harness.packing import PackedBlocks
from harness.sampling import sample_blocks
from harness.seeds import derive
from harness.train_settings import TrainSettings
from harness.training import Batch, LossFn, train

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from attacks.redistill import RedistillSettings
    from harness.plugins import AttackContext

CALIBRATION_BLOCKS = 64
"""Blocks for the closed-form solutions; at most as many others, never fitted, for the reported errors."""

Pair = tuple[torch.Tensor, torch.Tensor]


def dlr_nets(model: nn.Module) -> dict[str, nn.Module]:
    """The DLR-Nets of a model by path; by the name of a class or of one it comes from, for remote code has its own."""
    return {name: module for name, module in model.named_modules()
            if any(kind.__name__ == "DLRNet" for kind in type(module).__mro__)}  # fmt: skip


def undo(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: RedistillSettings,
         context: AttackContext) -> dict[str, Any]:  # fmt: skip
    """Replace every DLR-Net of `model` (in place) by a fitted shallow MLP; charged to the stage `undo`.

    Returns:
        JSON for the report: layers replaced, relative errors (squared error over variance) on blocks that were not
        fitted, at the closed-form start and at the end, and what was used.
    """
    nets = dlr_nets(model)
    if not nets:
        return {"replaced": []}
    with context.meter.stage("undo"):
        work = Undo(model.eval(), nets, tokenizer, settings, context)
        start = work.start()
        before = work.states()
        steps = work.fit()
        work.closed_form(draw=False)
        end = work.better(before, start)
        work.put(work.mlps)
        polished = work.polish()
    return {"replaced": list(nets), "hidden_size": work.hidden, "tokens": work.tokens, "error_start": start,
            "error": end, "undo_steps": steps, "polish_steps": polished}  # fmt: skip


class Undo:
    """The locked model, its DLR-Nets, and the shallow MLPs that learn them."""

    def __init__(self, model: PreTrainedModel, nets: dict[str, nn.Module], tokenizer: PreTrainedTokenizerBase,
                 settings: RedistillSettings, context: AttackContext) -> None:  # fmt: skip
        self.model, self.nets, self.settings, self.context = model, nets, settings, context
        self.hidden = settings.hidden_size or base_hidden_size(model)
        self.gates = [own_gates(net, self.hidden) for net in nets.values()]
        biased = any(parameter.dim() == 1 for net in nets.values() for parameter in net.parameters())
        width = int(model.config.get_text_config().hidden_size)
        self.mlps = [SwiGLU(width, self.hidden, biased).to(context.device) for _ in nets]
        self.students = Students(self.mlps)
        self.share = Share(context.meter)
        # One pass of the closed form: forward, features, sums of products.
        self.pass_flops = 2 * _count(model.base_model) + 2 * _count(self.students) + 2 * len(nets) * self.hidden**2
        sampled = self.share.affordable(2 * _count(model), fraction=0.25)
        text = task_blocks(tokenizer, context, settings.block_size)
        blocks = torch.cat([text, sample_blocks(model, min(settings.sampled_tokens, sampled), settings.block_size,
                                                context)])  # fmt: skip
        blocks = blocks[np.random.default_rng(derive(context.seed, "undo")).permutation(len(blocks))]
        self.tokens = blocks.numel()
        passes = 6 if any(self.gates) else 4  # a closed form and the errors after it, for each start and for the end
        afford = self.share.affordable(self.pass_flops, fraction=0.4) // (passes * settings.block_size)
        count = max(1, min(CALIBRATION_BLOCKS, len(blocks) // 4, afford))
        self.heldout, self.blocks, self.calibration = blocks[:count], blocks[count:], count

    def put(self, modules: Iterable[nn.Module]) -> None:
        """Put `modules` where the DLR-Nets are."""
        for name, module in zip(self.nets, modules, strict=True):
            parent, _, leaf = name.rpartition(".")
            setattr(self.model.get_submodule(parent), leaf, module)

    def capture(self, ids: torch.Tensor) -> list[Pair]:
        """(input, output) of every DLR-Net, each (tokens, width), from one forward pass without the output head."""
        found: list[Pair] = []

        def keep(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            found.append((inputs[0].flatten(0, -2).float(), output.flatten(0, -2).float()))

        hooks = [net.register_forward_hook(keep) for net in self.nets.values()]
        try:
            with torch.no_grad():
                self.model.base_model(input_ids=ids.to(self.context.device), use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        return found

    def closed_form(self, *, draw: bool) -> None:
        """Down projections by least squares on the features; `draw`: of random gates, drawn first."""
        generator = torch.Generator().manual_seed(derive(self.context.seed, "undo", "gates"))
        fits: list[Fit] = []
        for pairs in self._passes(self.blocks[:self.calibration]):
            if not fits:
                fits = [Fit(mlp, self.context) for mlp in self.mlps]
                for fit, (x, _) in zip(fits, pairs, strict=True):
                    if draw:
                        fit.draw(x, generator)
            for fit, (x, y) in zip(fits, pairs, strict=True):
                fit.add(x, y)
        for fit in fits:
            fit.solve()
        self._charge_memory(sum(fit.bytes for fit in fits))

    def start(self) -> list[float]:
        """Closed-form starts and their errors: of random gates, or where it is better, of gates that the nets have."""
        self.closed_form(draw=True)
        errors = self.errors()
        if not any(self.gates):
            return errors
        drawn = self.states()
        pairs = next(self._passes(self.blocks[:1]))
        for mlp, found, (x, _) in zip(self.mlps, self.gates, pairs, strict=True):
            if found is not None:
                found.put(mlp, x)
        self.closed_form(draw=False)
        return self.better(drawn, errors)

    def states(self) -> list[dict[str, torch.Tensor]]:
        """Copies of the shallow MLPs' weights."""
        return [{name: value.clone() for name, value in mlp.state_dict().items()} for mlp in self.mlps]

    def better(self, before: list[dict[str, torch.Tensor]], errors: list[float]) -> list[float]:
        """Errors as they are now; where they were lower `before`, those weights and `errors` come back."""
        found = []
        for mlp, state, was, now in zip(self.mlps, before, errors, self.errors(), strict=True):
            if not now < was:
                mlp.load_state_dict(state)
            found.append(now if now < was else was)
        return found

    def errors(self) -> list[float]:
        """Relative error of each layer on the held-out blocks."""
        with torch.no_grad():
            rows = [torch.stack(relative_errors(self.students([x for x, _ in pairs]), [y for _, y in pairs]))
                    for pairs in self._passes(self.heldout)]  # fmt: skip
        return [float(error) for error in torch.stack(rows).mean(0)]

    def fit(self) -> int:
        """Train all layers side by side on (input, output) of the DLR-Nets; returns the steps done."""
        later = 2 * self.calibration * self.settings.block_size  # the second closed form, and the errors

        def loss(module: nn.Module, batch: Batch) -> torch.Tensor:
            pairs = self.capture(batch["input_ids"])
            outputs = self.students([x for x, _ in pairs])
            return torch.stack(relative_errors(outputs, [y for _, y in pairs])).mean()

        flops = 2 * _count(self.model.base_model) + 6 * _count(self.students)
        return self._train("undo", self.settings.undo_steps, self.settings.undo_learning_rate, loss, flops, later)

    def polish(self) -> int:
        """End-to-end KL to the locked model, only the shallow MLPs trained, in place; returns the steps done."""

        def loss(module: nn.Module, batch: Batch) -> torch.Tensor:
            ids = batch["input_ids"]
            self.put(self.nets.values())
            with torch.no_grad():
                target = self.model(input_ids=ids, use_cache=False).logits
            self.put(self.mlps)
            return divergence(target, self.model(input_ids=ids, use_cache=False).logits)

        flops = 8 * _count(self.model)
        return self._train("polish", self.settings.polish_steps, self.settings.polish_learning_rate, loss, flops)

    def _passes(self, blocks: torch.Tensor) -> Iterator[list[Pair]]:
        """Captured pairs of all blocks, a few at a time; each pass is charged."""
        for ids in torch.split(blocks, self.settings.undo_batch_size):
            with self.context.meter.measure(tokens=ids.numel(), key=("capture", id(self), ids.shape)):
                pairs = self.capture(ids)
            yield pairs

    def _train(self, label: str, wanted: int, rate: float, loss: LossFn, flops: float, later: int = 0) -> int:
        settings = self.settings
        tokens = self.share.affordable(flops, reserve=later, reserve_flops=later * self.pass_flops)
        steps = min(wanted, tokens // (settings.undo_batch_size * settings.block_size), self.share.steps())
        if not steps:
            return 0
        batches = PackedBlocks(self.blocks.flatten().numpy(), block_size=settings.block_size,
                               batch_size=settings.undo_batch_size, seed=derive(self.context.seed, label))  # fmt: skip
        knobs = TrainSettings(learning_rate=rate, max_steps=steps, optim=settings.undo_optim, eval_points=0,
                              per_device_train_batch_size=settings.undo_batch_size, block_size=settings.block_size,
                              save_steps=settings.save_steps)  # fmt: skip
        result = train(self.students.requires_grad_(True), batches, knobs, self.context, label=label, loss_fn=loss,
                       stop=lambda step: self.share.late(), beside_bytes=module_bytes(self.model))  # fmt: skip
        return result.steps

    def _charge_memory(self, extra: int) -> None:
        if self.context.device == "cpu":
            held = module_bytes(self.model) + module_bytes(self.students) + extra
            self.context.meter.charge(Bill(peak_device_bytes=held))


def base_hidden_size(model: PreTrainedModel) -> int:
    """Hidden width of the base's MLPs, which a locked model's config still names.

    Raises:
        UsageError: it does not; then `hidden_size` must be given.
    """
    config = model.config.get_text_config()
    for key in ("intermediate_size", "ffn_dim", "n_inner"):
        if isinstance(found := getattr(config, key, None), int):
            return found
    if hasattr(config, "n_inner"):  # GPT-2's null
        return 4 * int(config.hidden_size)
    raise UsageError(f"the config of {type(model).__name__} names no MLP width; set attack.hidden_size")


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
