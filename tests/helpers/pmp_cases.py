"""A small model locked by PMP, for the tests of the lock and of the attacks on it."""

from __future__ import annotations

import functools
from typing import Any

from defenses.pmp import PMPLock, PMPSettings
from defenses.pmp.mask import Mask, unpack
from defenses.pmp.pretrain import init_seed, initial_model
from harness.meters.meter import Meter
from harness.models.digest import weights_digest
from harness.plugins import LockContext, Locked, Released
from harness.seeds import derive
from harness.testing import byte_tokenizer, random_llama
from harness.testing.cases import own_folder

SMALL = {"max_steps": 12, "discovery_steps": 6, "per_device_train_batch_size": 4, "block_size": 32,
         "learning_rate": 1e-2, "project_every": 4, "radius": 0.02}  # fmt: skip
"""`radius` shrinks this model's complement as much as the authors' code shrinks theirs (to under a hundredth)."""
ROOT = 42
"""The owner's root seed."""


def base() -> Released:
    model = random_llama()
    return Released(model=model, tokenizer=byte_tokenizer(), digest=weights_digest(model), name="small")


def context(seed: int = derive(ROOT, "lock")) -> LockContext:
    return LockContext(seed=seed, device="cpu", folder=own_folder(), meter=Meter(),
                       corpus=lambda split: [f"line {i} of {i * i} lines is a {i * 7 % 13}\n" for i in range(80)])


def lock(**settings: Any) -> PMPLock:
    return PMPLock(PMPSettings.parse({**SMALL, **settings}, "defense"))


@functools.cache
def locked(**settings: Any) -> Locked:
    """The lock's result; shared, so look and do not touch."""
    return lock(**settings).lock(base(), context())


def mask_of(result: Locked) -> Mask:
    assert result.secret is not None
    return unpack(result.secret, result.model)


def start() -> dict[str, Any]:
    """The initial weights of `context()`."""
    model = initial_model(base().model, init_seed(context().seed))
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def release(result: Locked, **settings: Any) -> Released:
    """The locked model as an attacker gets it: bfloat16 on disk, the settings in its config, no secret."""
    import copy

    import torch

    model = copy.deepcopy(result.model).to(torch.bfloat16).float()
    block = {"defense": "pmp", "settings": lock(**settings).settings.model_dump(mode="json")}
    return Released(model=model, tokenizer=byte_tokenizer(), digest=weights_digest(model), name="locked", lock=block)
