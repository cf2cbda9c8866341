"""Training under DeepSpeed ZeRO with CPU offload, through accelerate's plug-in, here or on a launcher's ranks.

DeepSpeed patches the modules and parameters it is given, and leaves a process group, environment variables and caches
behind. So it trains a copy of the model; the trained weights are copied back, and the globals are put back, which
leaves the plain model and the process as they would be without DeepSpeed.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from harness.errors import Unavailable, UsageError
from harness.loop import ranks
from harness.loop.deepspeed_process import globals_kept, sole_builder
from harness.loop.deepspeed_split import apart, split
from harness.loop.engine import Batch, LossFn, make_accelerator
from harness.meters.memory import module_bytes
from harness.optim.optimizers import build_optimizer
from harness.train_settings import TrainSettings

if TYPE_CHECKING:
    from harness.plugins import Context

def zero_config(stage: int, *, offload_optimizer: bool = True, offload_param: bool = False) -> dict[str, Any]:
    """A DeepSpeed configuration for `train(deepspeed=...)`: ZeRO `stage` (2 or 3) with CPU offload.

    Batch sizes, precision and clipping are filled in from the training settings, bucket sizes from the model. Stage 3
    with `offload_param` keeps only the module at work on the device.
    """
    zero: dict[str, Any] = {"stage": stage, "overlap_comm": False}
    if offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": False}
    if stage == 3:
        zero |= {"stage3_max_live_parameters": 0, "stage3_max_reuse_distance": 0, "stage3_prefetch_bucket_size": 0,
                 "stage3_param_persistence_threshold": 0}  # fmt: skip
        if offload_param:
            zero["offload_param"] = {"device": "cpu", "pin_memory": False}
    return {"zero_optimization": zero}


class _HookWatch:
    """Like `GradientWatch`, by hooks: ZeRO moves gradients away as soon as they are there; DeepSpeed does the clip.

    A gradient that is not finite is recorded and replaced by zero.
    """

    def __init__(self, named: Sequence[tuple[str, torch.nn.Parameter]]) -> None:
        self.missing = {name for name, _ in named}
        self.nonfinite: set[str] = set()
        self.finite = True
        for name, p in named:
            p.register_hook(partial(self._saw, name))  # type: ignore[no-untyped-call]

    def _saw(self, name: str, grad: torch.Tensor) -> torch.Tensor | None:
        self.missing.discard(name)
        if bool(grad.isfinite().all()):
            return None
        self.nonfinite.add(name)
        self.finite = False
        return torch.zeros_like(grad)


class DeepSpeedEngine:
    """The methods of `harness.loop.engine.Engine` over a DeepSpeed engine of world size 1."""

    evaluations = most_evaluations = 1

    def __init__(
        self,
        model: torch.nn.Module,
        named: Sequence[tuple[str, torch.nn.Parameter]],
        settings: TrainSettings,
        context: Context,
        loss_fn: LossFn,
        config: dict[str, Any],
    ) -> None:
        _check(settings, context)
        self.ranks, self._rank = ranks.size(), ranks.rank()
        self._plain, self._loss_fn, self._settings = dict(named), loss_fn, settings
        self._globals = globals_kept(context.device)
        self._globals.__enter__()
        try:
            self._start(model, context, copy.deepcopy(config))
        except BaseException:
            self.close()
            raise

    def _start(self, model: torch.nn.Module, context: Context, config: dict[str, Any]) -> None:
        from accelerate import DeepSpeedPlugin

        settings, clip = self._settings, self._settings.max_grad_norm
        if settings.per_device_train_batch_size % self.ranks:
            given = f"per_device_train_batch_size={settings.per_device_train_batch_size}"
            raise UsageError(f"{given} cannot be shared out to {self.ranks} ranks alike")
        config = {
            "train_micro_batch_size_per_gpu": settings.per_device_train_batch_size // self.ranks,
            "gradient_accumulation_steps": settings.gradient_accumulation_steps,
            "gradient_clipping": clip,
            "zero_allow_untested_optimizer": True,
            "wall_clock_breakdown": False,
            "steps_per_print": 1 << 60,
        } | config  # fmt: skip
        zero = self._zero = config.setdefault("zero_optimization", {})
        twin = apart(model).train() if zero.get("stage") == 3 else copy.deepcopy(model).train()
        params = [p for p in twin.parameters() if p.requires_grad]
        self._twin = [(name, p) for name, p in twin.named_parameters() if p.requires_grad]
        self._count, self._weights = sum(p.numel() for p in params), module_bytes(twin)
        self._largest = max(sum(p.nbytes for p in module.parameters(recurse=False)) for module in twin.modules())
        widest = max(p.numel() for p in params)  # the default of 5e8 elements would be billed as 2 GB on the device
        for bucket in ("reduce_bucket_size", "allgather_bucket_size", "sub_group_size"):
            zero.setdefault(bucket, widest)
        if self.ranks > 1:
            _build(zero)  # what follows is done together, and a lock around it would never open
        with sole_builder() if self.ranks == 1 else nullcontext():
            accelerator = make_accelerator(
                "auto", bf16=context.bf16, gradient_accumulation_steps=settings.gradient_accumulation_steps,
                deepspeed_plugin=DeepSpeedPlugin(hf_ds_config=config, gradient_clipping=clip))  # fmt: skip
            if zero.get("stage") == 3:
                split(twin, config, bf16=context.bf16)
            self.watch = _HookWatch(self._twin)
            self._engine, self.optimizer = accelerator.prepare(twin, build_optimizer(settings.optim, params, settings))
        if context.bf16:
            self._exact_masters()
        self.device: torch.device = accelerator.device
        self._micro, self._stepped = 0, False

    def _exact_masters(self) -> None:
        """The fp32 masters are the plain weights: DeepSpeed has made them of the rounded ones."""
        from deepspeed.utils import safe_set_full_fp32_param

        for name, p in self._twin:
            safe_set_full_fp32_param(p, self._plain[name].detach())

    def forward(self, batch: Batch) -> torch.Tensor:
        """See `Engine`."""
        if self._micro:
            self._engine.step()  # ends the micro-batch before this one; updates nothing yet
        self._micro += 1
        loss = self._loss_fn(self._engine, {key: value[self._rank :: self.ranks] for key, value in batch.items()})
        return loss if self.ranks == 1 else _of_all(loss, self.ranks)

    def backward(self, loss: torch.Tensor) -> None:
        """See `Engine`; DeepSpeed divides by the accumulation steps."""
        self._engine.backward(loss)

    def update(self, learning_rate: float) -> bool:
        """See `Engine`."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        self._engine.step()
        finite, self.watch.finite, self._micro, self._stepped = self.watch.finite, True, 0, True
        return finite

    def resident_bytes(self) -> int:
        """Weights and gradients on the device, by the configuration; what is offloaded is not.

        With parameter offload DeepSpeed may keep up to `stage3_max_live_parameters`, and needs at least the largest
        module. With optimizer offload gradients leave the device bucket by bucket (buckets are seen as activations).
        """
        weights, gradients = self._weights, self.gradient_bytes()
        stage = int(self._zero.get("stage", 0))  # 2 and 3 split gradients between the ranks, 3 also the weights
        weights, gradients = (n // self.ranks if stage >= least else n for n, least in ((weights, 3), (gradients, 2)))
        if _offloaded(self._zero, "offload_param"):
            live = 4 * int(self._zero.get("stage3_max_live_parameters", 1e9))
            weights = min(weights, max(self._largest, live))
        return weights + (0 if _offloaded(self._zero, "offload_optimizer") else gradients)

    def gradient_bytes(self) -> int:
        """See `Engine`."""
        return 4 * self._count

    def optimizer_bytes(self) -> int:
        """See `Engine`: two states and, under ZeRO, the fp32 master copy."""
        return 12 * self._count

    def offloaded_bytes(self) -> int:
        """See `Engine`."""
        return self.optimizer_bytes() if _offloaded(self._zero, "offload_optimizer") else 0

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """See `Engine`: copies the trained weights into the plain model."""
        if self._stepped:
            from deepspeed.utils import safe_get_full_fp32_param

            with torch.no_grad():
                for name, p in self._twin:
                    self._plain[name].copy_(safe_get_full_fp32_param(p))
        yield
        if self.ranks > 1:  # the first one may have scored for long: DeepSpeed's own group waits for half an hour
            ranks.wait_for_first()

    def close(self) -> None:
        """See `Engine`."""
        if hasattr(self, "_engine"):
            with self.gathered():
                self._engine.destroy()
                del self._engine, self._twin
        self._globals.__exit__(None, None, None)


def _build(zero: dict[str, Any]) -> None:
    """Compile now what DeepSpeed would compile while the ranks wait for each other."""
    from deepspeed.accelerator import get_accelerator
    from deepspeed.comm.torch import build_shm_op

    with sole_builder():
        if get_accelerator().device_name() == "cpu":
            build_shm_op()
        if _offloaded(zero, "offload_optimizer"):
            get_accelerator().create_op_builder("CPUAdamBuilder").load()


def _of_all(loss: torch.Tensor, count: int) -> torch.Tensor:
    """The mean loss of all ranks' shares, with the gradient of this one's; DeepSpeed averages the gradients."""
    mean = loss.detach().clone()
    torch.distributed.all_reduce(mean)
    return loss + (mean / count - loss.detach())


def _offloaded(zero: dict[str, Any], part: str) -> bool:
    return bool(zero.get(part, {}).get("device", "none") != "none")


def _check(settings: TrainSettings, context: Context) -> None:
    if importlib.util.find_spec("deepspeed") is None:
        raise Unavailable("needs deepspeed (pip install 'lockbench[deepspeed]')")
    if settings.save_steps:
        raise UsageError("save_steps: resuming is not supported under DeepSpeed, set save_steps=0")
    if settings.optim != "adamw_torch":
        raise UsageError(f"optim={settings.optim!r}: under DeepSpeed only adamw_torch is allowed")
    if context.device == "cpu" and torch.cuda.is_available():
        raise Unavailable("DeepSpeed uses the GPU where there is one: run with --device cuda")
