"""The conformance kit: what every lock, attack and task must hold to, ours and a third party's, as pytest classes.

Subclass the one of your kind in a test file and name your plug-in:

    from harness.testing import AttackConformance

    class TestMyAttack(AttackConformance):
        kind = MyAttack

Everything runs in seconds on models of some ten thousand parameters, on the CPU, with the network closed. Needs pytest
(the extra `test`).
"""

from __future__ import annotations

import pytest

# before they are imported: their asserts then say what they compared, as those of a test file do
pytest.register_assert_rewrite(*(f"harness.testing.{name}" for name in ("plugin", "attack", "defense", "task")))

from harness.testing.attack import AttackConformance
from harness.testing.cases import attack_context, documents, lock_context, no_network
from harness.testing.defense import DefenseConformance
from harness.testing.models import byte_tokenizer, locked_llama, random_gpt2, random_llama, released
from harness.testing.task import TaskConformance

__all__ = ["AttackConformance", "DefenseConformance", "TaskConformance", "attack_context", "byte_tokenizer",
           "documents", "lock_context", "locked_llama", "no_network", "random_gpt2", "random_llama",
           "released"]  # fmt: skip
