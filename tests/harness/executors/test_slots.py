"""How many jobs go side by side, and what they import, also for a classifier of which there is no folder yet."""

from __future__ import annotations

import pytest

from harness.executors import slots as module
from harness.executors.slots import modules, slots
from harness.planning.grid import plan


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.probes, "check", lambda name: "none here")
    monkeypatch.setattr(module, "usable_cores", lambda: 3)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(("model", "jobs"), [("resnet-tiny", 3), ("tiny", 3), ("resnet18", 3)])
def test_small_models_run_side_by_side(model: str, jobs: int) -> None:
    task = "python_source" if model == "tiny" else "digits"
    cells = plan({"models": [model], "defenses": ["none"], "attacks": ["full"], "tasks": [task]}, {})
    assert slots(cells, None, None) == jobs
    assert slots(cells, None, 7) == 7


def test_what_is_imported() -> None:
    grid = {"defenses": ["specdef"], "attacks": ["full"]}
    assert modules(plan({**grid, "models": ["resnet-tiny"], "tasks": ["digits"]}, {}), None) == [
        "defenses.specdef", "attacks.full"]  # fmt: skip
    assert "transformers.models.llama.modeling_llama" in modules(plan({**grid, "models": ["tiny"]}, {}), None)
