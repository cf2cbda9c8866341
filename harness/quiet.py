"""Keeps the libraries' chatter off the user's terminal, and off stdout altogether; errors still show."""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

LOGGERS = ("transformers", "accelerate", "bitsandbytes", "DeepSpeed", "deepspeed", "datasets", "lm_eval", "peft",
           "torch.distributed", "httpx", "filelock")  # fmt: skip


def quiet_libraries() -> None:
    """Raise the libraries' log level to errors and hide their deprecation warnings; call before they are imported."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DATASETS_VERBOSITY", "error")
    os.environ.setdefault("DS_LOG_LEVEL", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    # deepspeed sets its logger's level when it is imported; a filter stays.
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=UserWarning)


def bars_without_semaphores() -> None:
    """Give tqdm a lock of this process: its own is a system-wide semaphore, which outlives a process that is killed."""
    try:
        from tqdm import tqdm
    except ImportError:
        return
    tqdm.set_lock(threading.RLock())


@contextmanager
def stdout_kept() -> Iterator[None]:
    """Send what libraries print to stdout to stderr instead, so that stdout holds results and nothing else."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
