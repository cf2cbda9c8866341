"""Several processes for one training run, where a model does not fit one device: a launcher starts them, one leads.

    torchrun --nproc-per-node 2 -m harness.cli.main run --attack offload --set attack.zero_stage=3 ...

(`accelerate launch --num_processes 2 -m harness.cli.main run ...` is the same.) The process of rank 0 runs the command
as ever: it alone loads data, scores, keeps the cache and writes. The others follow: they wait until the leader trains
by an attack that can be shared out (`Attack.distributed`), load the same released model, go through the same attack
with their share of every micro-batch, and wait again. They score nothing and write nothing.

A rank that dies takes the others along, which is the launcher's work; the same command then goes on.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from harness.errors import Outcome, Unavailable

if TYPE_CHECKING:
    from harness.meters.meter import Meter
    from harness.plugins import Released
    from harness.spec import Spec


def size() -> int:
    """Processes that the launcher started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def rank() -> int:
    """This one, from 0."""
    return int(os.environ.get("RANK", "0"))


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a follower needs to know of a training run."""

    spec: dict[str, Any]
    folder: str
    seed: int
    budget: dict[str, Any]
    spent: dict[str, dict[str, Any]]
    work: str
    secret: str | None
    data_dir: str | None


def join() -> None:
    """Enter the group of all ranks, once; on the CPU over gloo, on GPUs over NCCL with gloo for what is no tensor."""
    import torch
    import torch.distributed as dist

    if dist.is_initialized():
        return
    if os.environ.get("MASTER_ADDR", "") in ("127.0.0.1", "localhost"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    # The others wait while the first makes a lock or scores, for hours where the model is large.
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo", timeout=timedelta(days=30))


def call(spec: Spec, target: Released, seed: int, meter: Meter, work: Path, secret: Path | None,
         data_dir: Path | None) -> None:  # fmt: skip
    """Tell the followers to take part in the training run that the leader begins now.

    Raises:
        Unavailable: the budget is in seconds, which ranks would not agree on, or the model lies in no folder.
    """
    if meter.budget.seconds is not None:
        raise Unavailable("budget.seconds with several ranks: they would not stop at the same step")
    if target.folder is None:
        raise Unavailable("several ranks: the model lies in no folder that the others could load")
    _tell(Request(spec=spec.model_dump(mode="json"), folder=str(target.folder), seed=seed,
                  budget=meter.budget.model_dump(mode="json"), work=str(work), secret=str(secret) if secret else None,
                  spent={stage: bill.model_dump(mode="json") for stage, bill in meter.bills.items()},
                  data_dir=str(data_dir) if data_dir else None))  # fmt: skip


def wait_for_first() -> None:
    """Wait, however long, until the leader is here too."""
    import torch.distributed as dist

    dist.broadcast_object_list([None], src=0)


def dismiss() -> None:
    """Tell the followers that the command is over."""
    _tell(None)
    _leave()


def end(status: int) -> NoReturn:
    """End this rank at once: its work is done, and a library's threads, unwound at exit, may still abort it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def follow() -> int:
    """The life of a rank that does not lead; the exit status."""
    from harness.quiet import quiet_libraries, stdout_kept

    quiet_libraries()
    with stdout_kept():
        while (request := _hear()) is not None:
            try:
                _take_part(request)
            except Outcome:  # the leader met it too, and records it
                continue
    _leave()
    return 0


def _take_part(request: Request) -> None:
    from harness.bill import Bill
    from harness.budget import Budget
    from harness.cache import Cache
    from harness.meters.meter import Meter
    from harness.models.load import load_model
    from harness.plugins import AttackContext
    from harness.progress import Progress
    from harness.spec import Spec
    from harness.workshop import Workshop

    spec = Spec.parse(request.spec, "spec")
    data_dir = Path(request.data_dir) if request.data_dir else None
    workshop = Workshop(cache=Cache(Path(request.work)), data_dir=data_dir, progress=Progress(quiet=True))
    device = workshop.device(spec)
    released = load_model(request.folder, data_dir=data_dir, dtype=spec.model.dtype, device=device,
                          trust_remote_code=spec.model.trust_remote_code)  # fmt: skip
    spent = {stage: Bill(**bill) for stage, bill in request.spent.items()}
    context = AttackContext(seed=request.seed, device=device, folder=Path(request.work), data_dir=data_dir,
                            meter=Meter(Budget(**request.budget), spent=spent),
                            bf16=workshop.bf16(spec, released.model),
                            task=spec.build_task(data_dir), secret=Path(request.secret) if request.secret else None,
                            probe=lambda model: 0.0)  # fmt: skip
    spec.build_attack().attack(released, context)


def _tell(request: Request | None) -> None:
    import torch.distributed as dist

    join()
    dist.broadcast_object_list([request], src=0)


def _leave() -> None:
    """Out of the group in good order: a process that ends inside it may be aborted by the group's own threads."""
    import torch.distributed as dist

    dist.destroy_process_group()


def _hear() -> Request | None:
    import torch.distributed as dist

    join()
    heard: list[Any] = [None]
    dist.broadcast_object_list(heard, src=0)
    found: Request | None = heard[0]
    return found
