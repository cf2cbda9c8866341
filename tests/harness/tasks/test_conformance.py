"""The embedded tasks pass the conformance kit; those of the data pack have test_pack.py."""

from __future__ import annotations

from harness.tasks.fictional_facts import FictionalFacts
from harness.tasks.python_source import PythonSource
from harness.testing import TaskConformance


class TestPythonSource(TaskConformance):
    kind = PythonSource
    settings = {"train_bytes": 60_000, "max_items": 20}


class TestFictionalFacts(TaskConformance):
    kind = FictionalFacts
    settings = {"people": 8, "values": 4}
