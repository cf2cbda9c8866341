"""The inside of `harness.training.train`: one run, from plan to proof."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import torch

from harness.bill import Bill
from harness.loop.checkpoint import Checkpoint, fingerprint
from harness.loop.engine import Batch, Engine, PlainEngine
from harness.loop.passes import count_tokens, evaluated
from harness.loop.proof import tensor_hash, tensor_hashes
from harness.loop.reproducible import cannot_repeat, random_state_kept, strictly
from harness.loop.schedule import eval_steps, learning_rates, plan_steps
from harness.loop.snapshots import Snapshots
from harness.loop.state import State
from harness.meters.device_memory import DeviceMemory
from harness.meters.flops import FlopCounter
from harness.meters.micro import MicroCost, measure_micro
from harness.train_settings import TrainSettings
from harness.training import Batches, TrainResult, TrajectoryPoint

if TYPE_CHECKING:
    from harness.plugins import Context


class Run:
    """One training run over an engine; use `execute` once."""

    def __init__(
        self,
        model: torch.nn.Module,
        batches: Batches,
        settings: TrainSettings,
        context: Context,
        engine: Engine,
        named: Sequence[tuple[str, torch.nn.Parameter]],
        *,
        label: str,
        probe: Callable[[Any], float] | None,
        stop: Callable[[int], bool] | None,
        memory: DeviceMemory,
        beside_bytes: int,
        spare_flops: float,
    ) -> None:
        self._model, self._batches, self._settings, self._context = model, batches, settings, context
        self._engine, self._named, self._label, self._probe, self._stop = engine, named, label, probe, stop
        self._meter, self._memory, self._beside = context.meter, memory, beside_bytes
        self._costs: dict[tuple[Any, ...], MicroCost] = {}
        self._spare, self._dearest = spare_flops * settings.gradient_accumulation_steps, 0.0
        self._spent, self._resumed_at = Bill(), -1
        self._strict = engine.device.type == "cuda" and isinstance(engine, PlainEngine)
        self._seconds_before = self._meter.total.seconds
        self._first = batches(0, 0)
        self._tokens = count_tokens(self._first) * settings.gradient_accumulation_steps * engine.most_evaluations
        self._allowed = self._meter.remaining()
        steps, limit = plan_steps(settings.max_steps, self._allowed, self._tokens)
        self._state = State(steps=steps, limit=limit)
        self._plan()
        with engine.gathered():
            self._before = tensor_hashes(named)
        self._snapshots = self._open_snapshots() if settings.save_steps else None

    def execute(self) -> TrainResult:
        """Train to the end of the plan, the budget or the caller's stop."""
        try:
            stopped = self._steps()
        finally:  # the second step has the states of the first in memory; and so it is known of what ran out of it
            self._charge(Bill(peak_device_bytes=self._memory.peak() or None))
        return self._result(stopped or self._state.limit)

    def _steps(self) -> str:
        self._resume()
        state, stopped = self._state, ""
        if state.step == 0:
            self._score()
        while state.step < state.steps and not stopped:
            self._one_step()
            stopped = self._reason_to_stop()
            last = bool(stopped) or state.step == state.steps
            if state.step in self._points or (last and self._points):
                self._score()
            if not last:
                self._save()
        if self._snapshots is not None:
            self._snapshots.remove()
        return stopped

    def _one_step(self) -> None:
        state, losses, once = self._state, [], Bill()
        for micro in range(self._settings.gradient_accumulation_steps):
            batch = self._batches(state.step, micro) if state.step or micro else self._first
            tokens = count_tokens(batch)
            batch = {key: value.to(self._engine.device) for key, value in batch.items()}
            loss, cost = self._repeatable(batch, micro)
            losses.append(loss)
            bill = Bill(forward_flops=cost.forward_flops, backward_flops=cost.backward_flops, tokens=tokens)
            self._charge(bill)
            once = once.plus(bill)
        self._dearest = max(self._dearest, once.flops)
        finite = self._engine.update(self._rates[state.step])
        for _ in range(self._engine.evaluations - 1):  # a line search looked at the same batches again
            self._charge(once)
        state.skipped += not finite
        state.step += 1
        state.losses.append(float(torch.stack(losses).mean()))
        self._charge(Bill(steps=1))
        if len(state.losses) == 1 or self._resumed_at == state.step - 1:
            self._charge_memory(max(cost.peak_bytes for cost in self._costs.values()))  # now with the real state
        self._context.progress(self._label, state.step, state.steps)
        total = self._meter.total
        self._context.log({f"{self._label}/loss": state.losses[-1],
                           f"{self._label}/learning_rate": self._rates[state.step - 1],
                           "tokens": total.tokens, "flops": total.flops}, state.step)  # fmt: skip

    def _repeatable(self, batch: Batch, micro: int) -> tuple[torch.Tensor, MicroCost]:
        """The micro-batch by kernels that repeat their bits; by any from the first operation on that has none."""
        try:
            with strictly(self._strict):
                return self._micro(batch, micro)
        except RuntimeError as error:
            if micro or not self._strict or not cannot_repeat(error):
                raise
        self._strict = False
        self._engine.optimizer.zero_grad(set_to_none=True)
        return self._micro(batch, micro)

    def _micro(self, batch: Batch, micro: int) -> tuple[torch.Tensor, MicroCost]:
        key = (micro > 0, *((name, tuple(t.shape), t.dtype) for name, t in sorted(batch.items())))
        if cost := self._costs.get(key):
            with FlopCounter() if self._spare else nullcontext() as counter:
                loss = self._engine.forward(batch)
                forward = counter.total if counter else 0
                self._engine.backward(loss)
            if counter:
                cost = replace(cost, forward_flops=forward, backward_flops=counter.total - forward)
            return loss.detach(), cost
        params = [p for _, p in self._named]
        loss, cost = measure_micro(lambda: self._engine.forward(batch), self._engine.backward, params)
        cost = cost.on_ranks(getattr(self._engine, "ranks", 1))  # each does an equal share; the bill is of all
        self._costs[key] = cost
        self._charge(Bill(kept_for_backward_bytes=cost.kept_for_backward_bytes,
                          peak_backward_bytes=cost.peak_backward_bytes))  # fmt: skip
        self._charge_memory(cost.peak_bytes)
        if self._state.step == 0 and micro == 0:
            self._replan(cost)
        return loss, cost

    def _replan(self, cost: MicroCost) -> None:
        """Now that the FLOPs of a step are known, and before the first update: does the plan still fit?"""
        passes = self._settings.gradient_accumulation_steps * self._engine.most_evaluations
        flops = (cost.forward_flops + cost.backward_flops) * passes
        left = self._allowed
        if left.flops is not None:
            left = replace(left, flops=max(0.0, left.flops - self._spare))
        steps, limit = plan_steps(self._state.steps, left, self._tokens, flops)
        if steps < self._state.steps:
            self._state.steps, self._state.limit = steps, limit
            self._plan()

    def _plan(self) -> None:
        self._rates = learning_rates(self._settings, self._state.steps)
        self._points = eval_steps(self._state.steps, self._settings.eval_points) if self._probe else set()

    def _charge(self, bill: Bill) -> None:
        self._spent = self._spent.plus(bill)
        self._meter.charge(bill)

    def _charge_memory(self, activations: int) -> None:
        """Gradients, optimizer state and the peak on the device: accounted on CPU, the allocator's on CUDA."""
        optimizer, device = self._engine.optimizer_bytes(), self._engine.device
        if device.type == "cuda":
            peak = self._memory.peak()
        else:
            on_device = optimizer - self._engine.offloaded_bytes()
            peak = self._engine.resident_bytes() + self._beside + on_device + activations
        params = [p for _, p in self._named]
        self._charge(Bill(
            optimizer_bytes=optimizer,
            gradient_bytes=self._engine.gradient_bytes(),
            trainable_parameters=sum(p.numel() for p in params),
            peak_device_bytes=peak,
        ))  # fmt: skip

    def _reason_to_stop(self) -> str:
        ended = self._stop is not None and self._stop(self._state.step)  # asked after every step, the last included
        left = self._meter.seconds_left()
        if left is not None and left <= 0:
            return "seconds"
        flops = self._meter.remaining().flops if self._spare else None
        if flops is not None and flops < self._dearest + self._spare:
            return "flops"
        return "stop" if ended else ""

    def _score(self) -> None:
        """One point of the trajectory; neither time nor random numbers nor modes are touched."""
        if not self._points or self._probe is None:
            return
        total = self._meter.total
        with (self._meter.pause(), random_state_kept(), evaluated(self._model), torch.no_grad(), self._memory.aside(),
              self._engine.gathered()):  # fmt: skip
            score = float(self._probe(self._model))
        self._state.trajectory.append(
            TrajectoryPoint(step=self._state.step, tokens=total.tokens, flops=total.flops, score=score))  # fmt: skip
        self._context.log({f"{self._label}/selection_score": score}, self._state.step)

    def _result(self, stopped: str) -> TrainResult:
        with self._engine.gathered():
            unmoved = [name for name, p in self._named if tensor_hash(p) == self._before[name]]
        watch, state = self._engine.watch, self._state
        return TrainResult(
            steps=state.step,
            losses=state.losses,
            trajectory=state.trajectory,
            trained=[name for name, _ in self._named],
            unmoved=unmoved,
            missing_gradients=sorted(watch.missing),
            nonfinite_gradients=sorted(watch.nonfinite),
            stopped_by=stopped,
            extra={"skipped_steps": state.skipped} if state.skipped else {},
        )

    # Snapshots

    def _open_snapshots(self) -> Snapshots:
        state = {**dict(self._model.named_parameters()), **dict(self._model.named_buffers())}
        checkpoint = Checkpoint(self._context.folder, self._label, fingerprint(
            settings=self._settings.model_dump(mode="json"), seed=self._context.seed, label=self._label,
            bf16=self._context.bf16, budget=self._meter.budget.model_dump(mode="json"), points=sorted(self._points),
            batch=tensor_hashes(sorted(self._first.items())), model=tensor_hashes(state.items()),
            trained=[name for name, _ in self._named],
        ))  # fmt: skip
        return Snapshots(checkpoint, self._model, self._engine, self._named)

    def _save(self) -> None:
        if self._snapshots is None or self._state.step % self._settings.save_steps:
            return
        bill = self._spent.plus(Bill(seconds=self._meter.total.seconds - self._seconds_before))
        self._snapshots.save(self._state.step, {"state": asdict(self._state), "bill": bill.model_dump(mode="json")})

    def _resume(self) -> None:
        found = self._snapshots.restore() if self._snapshots is not None else None
        if found is None:
            return
        trajectory = [TrajectoryPoint(**point) for point in found["state"].pop("trajectory")]
        self._state = State(**found["state"], trajectory=trajectory)
        self._resumed_at = self._state.step
        self._plan()
        self._charge(Bill(**found["bill"]))
