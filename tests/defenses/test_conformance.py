"""Every lock passes the conformance kit."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from typing import Any

from pmp_cases import SMALL

from defenses.dlr import DLRLock
from defenses.external import External
from defenses.none import NoDefense
from defenses.pmp import PMPLock
from defenses.specdef import SpecDef
from defenses.specdef_reparam import SpecDefReparam
from harness.testing import DefenseConformance, random_llama


def sure_llama() -> Any:
    """A random Llama that is sure of its predictions, so that a broken layer shows in them."""
    import torch

    model: Any = random_llama()
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    return model


class TestNone(DefenseConformance):
    kind, seeded, max_kl = NoDefense, False, 0.0


class TestDLR(DefenseConformance):
    kind, max_kl = DLRLock, 0.2
    settings = {"depth": 4, "module_steps": 20, "polish_steps": 20, "generated_tokens": 512, "block_size": 32,
                "self_generated": 0.1, "check_every": 10}  # fmt: skip


class TestSpecDef(DefenseConformance):
    kind = SpecDef
    settings = {"max_steps": 8, "learning_rate": 6e-3, "block_size": 32, "per_device_train_batch_size": 4}


class TestSpecDefReparam(DefenseConformance):
    kind, base, max_kl = SpecDefReparam, staticmethod(sure_llama), 1e-4
    settings = {"k": 8, "count": 3, "heldout_tokens": 512}


class TestPMP(DefenseConformance):
    """Pretrained afresh, so what it keeps is compared with its control, of the same few steps."""

    kind, settings, max_kl = PMPLock, SMALL, 0.5


class TestExternal(DefenseConformance):
    """A folder of others: the base with slightly other weights, as a lock of theirs might have left it."""

    kind, seeded = External, False

    @classmethod
    def build(cls, **changes: Any) -> Any:
        return super().build(path=_folder(), **changes)


@functools.cache
def _folder() -> str:
    import torch

    from harness.testing import byte_tokenizer

    model: Any = random_llama()
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=1e-4)
    folder = tempfile.mkdtemp(prefix="external-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder
