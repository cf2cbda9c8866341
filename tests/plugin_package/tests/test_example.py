"""The example's lock and attack pass the conformance kit."""

from __future__ import annotations

from lockbench_example.embeddings import EmbeddingsOnly
from lockbench_example.scaled import ScaledLock

from harness.testing import AttackConformance, DefenseConformance


class TestScaled(DefenseConformance):
    kind, seeded = ScaledLock, False


class TestEmbeddingsOnly(AttackConformance):
    kind, settings = EmbeddingsOnly, {"learning_rate": 2e-2}
