"""Keeps the libraries' chatter off the user's terminal; errors still show."""

from __future__ import annotations

import logging
import os
import warnings

LOGGERS = ("transformers", "accelerate", "bitsandbytes", "DeepSpeed", "deepspeed", "datasets", "lm_eval", "lm-eval", "peft",
           "torch.distributed", "httpx", "filelock")  # fmt: skip


def quiet_libraries() -> None:
    """Raise the libraries' log level to errors and hide their deprecation warnings; call before they are imported."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DATASETS_VERBOSITY", "error")
    os.environ.setdefault("DS_LOG_LEVEL", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=UserWarning)
