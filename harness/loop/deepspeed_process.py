"""What DeepSpeed changes in the process it runs in, and how that is put back; and its builds, one at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock
from torch._C._distributed_c10d import HashStore

from harness.cache import default_root
from harness.loop import ranks
from harness.meters.device_memory import cuda_index

_ENVIRONMENT = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "LOCAL_SIZE": "1",
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "GLOO_SOCKET_IFNAME": "lo",
                "ACCELERATE_USE_DEEPSPEED": "true", "DEEPSPEED_LOG_LEVEL": "error"}  # fmt: skip

_LAUNCHERS = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "LOCAL_SIZE", "MASTER_ADDR", "MASTER_PORT",
              "GLOO_SOCKET_IFNAME"}  # fmt: skip
"""Set by the launcher where there is one."""


@contextmanager
def sole_builder() -> Iterator[None]:
    """One process at a time compiles DeepSpeed's CPU optimizer and communication, which their first use does.

    torch marks a build by a file `lock`, which a killed build leaves behind, and every later process would wait for it
    for ever. Under a lock of the operating system, which ends with its process, such a file is nobody's.
    """
    folder = Path(os.environ["TORCH_EXTENSIONS_DIR"])
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "building"):
        for abandoned in folder.rglob("lock"):
            abandoned.unlink()
        yield


@contextmanager
def globals_kept(device: str) -> Iterator[None]:
    """Environment, thread count, process group and the caches of DeepSpeed and accelerate are as before afterwards.

    So is `torch.nn.functional.linear`: ZeRO-3 replaces it for the whole process "until manually reset", and whatever
    trained after it would run, and be billed, through DeepSpeed's kernel (its checkpointing repeats one more product).
    """
    environment, threads = dict(os.environ), torch.get_num_threads()
    linear = torch.nn.functional.linear
    alone = ranks.size() == 1
    for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
        del os.environ[name]  # `accelerate launch` and its config file: of what they ask we set all ourselves
    os.environ.update({key: value for key, value in _ENVIRONMENT.items() if alone or key not in _LAUNCHERS})
    os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(default_root() / "torch_extensions"))
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    if device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    elif alone:
        os.environ["LOCAL_RANK"] = str(cuda_index(device))
    if not alone:
        ranks.join()
    own = not torch.distributed.is_initialized()
    if own:  # a store in memory: no port is opened
        backend, store = "gloo" if device == "cpu" else "nccl", HashStore()
        torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    try:
        yield
    finally:
        torch.nn.functional.linear = linear
        _forget(own)
        os.environ.clear()
        os.environ.update(environment)
        torch.set_num_threads(threads)


def _forget(own: bool) -> None:
    """Drop the process group and what DeepSpeed remembers of it."""
    import deepspeed.comm.comm
    from accelerate.state import AcceleratorState, GradientState
    from deepspeed.utils import groups

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    if own:
        torch.distributed.destroy_process_group()
        deepspeed.comm.comm.cdb = None
        for name in ("_WORLD_GROUP", "_ZERO_PARAM_INTRA_PARALLEL_GROUP", "_TENSOR_MODEL_PARALLEL_GROUP",
                     "_MODEL_PARALLEL_GROUP", "_DATA_PARALLEL_GROUP", "mesh_device"):  # fmt: skip
            setattr(groups, name, None)
