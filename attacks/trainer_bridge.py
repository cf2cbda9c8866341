"""A stock transformers.Trainer under this project's budget, meter and proof: a dataset in order and one callback."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from harness.bill import Bill
from harness.loop.gradients import GradientWatch
from harness.loop.passes import count_tokens, evaluated
from harness.loop.proof import tensor_hash, tensor_hashes
from harness.loop.reproducible import random_state_kept, reproducible
from harness.loop.schedule import eval_steps, plan_steps, warmup_steps
from harness.meters.device_memory import DeviceMemory, device_memory
from harness.meters.memory import module_bytes, real_out_of_memory
from harness.meters.micro import MicroCost, measure_micro
from harness.optim.optimizers import expected_state_bytes, state_bytes
from harness.train_settings import TrainSettings
from harness.training import Batch, Batches, TrainResult, TrajectoryPoint

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.plugins import AttackContext


class InOrder(Dataset[Batch]):
    """The sequences of all micro-batches, one after the other, as a map-style dataset."""

    def __init__(self, batches: Batches, steps: int, settings: TrainSettings) -> None:
        self.batches, self.size = batches, settings.per_device_train_batch_size
        self.parts = settings.gradient_accumulation_steps
        self.length = steps * self.parts * self.size
        self._cached: tuple[int, Batch] = (-1, {})

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Batch:
        number, row = divmod(index, self.size)
        if self._cached[0] != number:
            self._cached = (number, self.batches(*divmod(number, self.parts)))
        return {key: value[row] for key, value in self._cached[1].items()}


class Account(TrainerCallback):  # type: ignore[misc]
    """Charges every step, enforces the budget, scores the trajectory, and watches the gradients."""

    def __init__(self, model: PreTrainedModel, settings: TrainSettings, context: AttackContext, cost: MicroCost,
                 tokens: int, steps: int, memory: DeviceMemory) -> None:  # fmt: skip
        self.model, self.settings, self.context, self.steps = model, settings, context, steps
        self.memory = memory
        self.named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.watch = GradientWatch(self.named)
        self.trajectory: list[TrajectoryPoint] = []
        self.points = eval_steps(steps, settings.eval_points) if context.probe else set()
        parts = settings.gradient_accumulation_steps
        self.each = Bill(forward_flops=parts * cost.forward_flops, backward_flops=parts * cost.backward_flops,
                         tokens=parts * tokens, steps=1)  # fmt: skip
        self.cost, self.stopped = cost, ""

    def charge_memory(self, optimizer_bytes: int) -> None:
        """The device's peak, accounted on CPU and the allocator's on CUDA."""
        params = [p for _, p in self.named]
        gradients = sum(p.numel() * p.element_size() for p in params)
        accounted = module_bytes(self.model) + gradients + optimizer_bytes + self.cost.peak_bytes
        peak = self.memory.peak() if params[0].is_cuda else accounted
        self.context.meter.charge(Bill(
            kept_for_backward_bytes=self.cost.kept_for_backward_bytes, optimizer_bytes=optimizer_bytes,
            peak_backward_bytes=self.cost.peak_backward_bytes, gradient_bytes=gradients, peak_device_bytes=peak,
            trainable_parameters=sum(p.numel() for p in params)))  # fmt: skip

    def score(self, step: int) -> None:
        """One point of the trajectory; nobody pays for it."""
        if self.context.probe is None or step not in self.points:
            return
        total, meter = self.context.meter.total, self.context.meter
        with meter.pause(), random_state_kept(), evaluated(self.model), torch.no_grad(), self.memory.aside():
            score = float(self.context.probe(self.model))
        self.trajectory.append(TrajectoryPoint(step=step, tokens=total.tokens, flops=total.flops, score=score))
        self.context.log({"attack/selection_score": score}, step)

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Score the start."""
        self.score(0)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Hand the curves on."""
        known = {f"attack/{key}": logs[key] for key in ("loss", "learning_rate") if logs and key in logs}
        if known:
            self.context.log(known, state.global_step)

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Look at the gradients, after the Trainer has clipped them."""
        self.watch.clip(0)

    def on_step_end(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        """Charge, show, score, stop."""
        self.context.meter.charge(self.each)
        if state.global_step == 1:
            self.charge_memory(state_bytes(keywords["optimizer"]))
        self.context.progress("attack", state.global_step, self.steps)
        left = self.context.meter.seconds_left()
        if left is not None and left <= 0 and state.global_step < self.steps:
            self.stopped, control.should_training_stop = "seconds", True
            self.points = self.points | {state.global_step}
        self.score(state.global_step)


def train_by_trainer(model: PreTrainedModel, batches: Batches, settings: TrainSettings,
                     context: AttackContext) -> TrainResult:  # fmt: skip
    """Train every parameter of `model` that requires a gradient with transformers.Trainer.

    Args:
        model: trained in place.
        batches: micro-batches by (step, micro).
        settings: knobs, given to TrainingArguments under the same names.
        context: device, seed, precision, meter, probe.

    Raises:
        OutOfMemory: the budget's memory, or the machine's, does not suffice.
        OverBudget: the budget does not allow a single step.
    """
    with (reproducible(context.seed), evaluated(model), real_out_of_memory(),
          device_memory(context, model) as memory):  # fmt: skip
        try:
            return _train(model, batches, settings, context, memory)
        finally:
            context.meter.charge(Bill(peak_device_bytes=memory.peak() or None))


def _train(model: PreTrainedModel, batches: Batches, settings: TrainSettings, context: AttackContext,
           memory: DeviceMemory) -> TrainResult:  # fmt: skip
    first = batches(0, 0)
    tokens, parts = count_tokens(first), settings.gradient_accumulation_steps
    cost = _measure(model, first, settings, context)
    flops = parts * (cost.forward_flops + cost.backward_flops)
    steps, limit = plan_steps(settings.max_steps, context.meter.remaining(), parts * tokens, flops)
    account = Account(model, settings, context, cost, tokens, steps, memory)
    account.charge_memory(expected_state_bytes(settings.optim, [p for _, p in account.named]))
    before, use_cache = tensor_hashes(account.named), model.config.use_cache
    with tempfile.TemporaryDirectory(dir=context.folder) as folder:
        trainer = Trainer(model=model, args=_arguments(settings, context, steps, folder), callbacks=[account],
                          train_dataset=InOrder(batches, steps, settings))  # fmt: skip
        # The mean of a micro-batch, whatever the model is called: for some (GPT-2) the Trainer counts one target a
        # sequence too many and scales the loss by (n - 1) / n. All micro-batches have one size.
        trainer.model_accepts_loss_kwargs = False
        trainer.remove_callback(PrinterCallback)  # it writes to stdout, which is for tables
        trainer.train()
    model.config.use_cache = use_cache  # the Trainer switches it off for good
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    return TrainResult(
        steps=trainer.state.global_step, losses=losses, trajectory=account.trajectory,
        trained=[name for name, _ in account.named],
        unmoved=[name for name, p in account.named if tensor_hash(p) == before[name]],
        missing_gradients=sorted(account.watch.missing), nonfinite_gradients=sorted(account.watch.nonfinite),
        stopped_by=account.stopped or limit, extra={"implementation": "transformers.Trainer"},
    )  # fmt: skip


def _measure(model: PreTrainedModel, batch: Batch, settings: TrainSettings, context: AttackContext) -> MicroCost:
    """Exact counts of one micro-batch; every one has this shape, and nothing is left of the measurement."""
    from harness.loop.engine import checkpointed

    batch = {key: value.to(context.device) for key, value in batch.items()}
    params = [p for p in model.parameters() if p.requires_grad]

    def forward() -> torch.Tensor:
        with torch.autocast(torch.device(context.device).type, torch.bfloat16, enabled=context.bf16):
            loss: torch.Tensor = model(**batch, use_cache=False).loss
            return loss

    model.train()
    with random_state_kept(), checkpointed(model, settings.gradient_checkpointing):
        _, cost = measure_micro(forward, torch.Tensor.backward, params)
    model.zero_grad(set_to_none=True)
    return cost


def _arguments(settings: TrainSettings, context: AttackContext, steps: int, folder: str) -> TrainingArguments:
    """TrainingArguments under the same names; everything that would report, save or shuffle is off."""
    same = ("learning_rate", "per_device_train_batch_size", "gradient_accumulation_steps", "lr_scheduler_type",
            "optim", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm",
            "gradient_checkpointing")  # fmt: skip
    arguments = TrainingArguments(
        output_dir=folder, max_steps=steps, warmup_steps=warmup_steps(steps, settings.warmup_ratio), bf16=context.bf16,
        seed=context.seed, data_seed=context.seed, use_cpu=context.device == "cpu", logging_steps=1,
        logging_nan_inf_filter=False, save_strategy="no", report_to="none", disable_tqdm=True,
        train_sampling_strategy="sequential", dataloader_pin_memory=False,
        gradient_checkpointing_kwargs={"use_reentrant": False}, **{name: getattr(settings, name) for name in same},
    )  # fmt: skip
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # else the Trainer would wrap the model in DataParallel and multiply the batch
    return arguments
