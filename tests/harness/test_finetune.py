"""Fine-tuning on a task: its own documents, cut to the budget, on the bill of the attack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.budget import Budget
from harness.errors import UsageError
from harness.finetune import finetune, task_batches
from harness.meters.meter import Meter
from harness.plugins import AttackContext, ItemScore, Split, Task
from harness.settings import Settings
from harness.training import TrainSettings

SETTINGS = TrainSettings(max_steps=6, learning_rate=3e-3, per_device_train_batch_size=2, block_size=16, eval_points=2)


class ToyTask(Task):
    """Thirty documents."""

    Settings = Settings
    metric, unit = "toy", "none"

    def __init__(self, texts: Sequence[str]) -> None:
        super().__init__(Settings())
        self.texts = texts

    def train_texts(self) -> Sequence[str]:
        return self.texts

    def score(self, released: Any, split: Split, *, limit: int | None = None) -> list[ItemScore]:
        raise NotImplementedError

    def digest(self) -> str:
        return "0" * 64


def context(folder: Path, budget: str = "", texts: Sequence[str] = ("abcdefgh " * 20,) * 30) -> AttackContext:
    return AttackContext(seed=0, device="cpu", folder=folder, meter=Meter(Budget.from_text(budget)),
                         task=ToyTask(texts), probe=lambda model: 1.0)  # fmt: skip


def test_it_learns_the_task_on_the_bill_of_the_attack(tmp_path: Path, tiny_llama: Any) -> None:
    ctx = context(tmp_path)
    result = finetune(tiny_llama.model, tiny_llama.tokenizer, ctx, SETTINGS)
    assert result.losses[-1] < result.losses[0] - 0.2
    assert list(ctx.meter.bills) == ["attack"]
    assert ctx.meter.bills["attack"].tokens == 6 * 2 * 16
    assert [point.step for point in result.trajectory] == [0, 3, 6]


def test_budget_examples_cut_the_documents(tmp_path: Path, tiny_llama: Any) -> None:
    texts = [letter * 50 for letter in "abcdefghij"]
    blocks = task_batches(tiny_llama.tokenizer, context(tmp_path, "examples=3", texts), SETTINGS).blocks
    assert set(tiny_llama.tokenizer.decode(blocks.flatten(), skip_special_tokens=True)) == set("abc")


def test_a_task_without_text_is_a_usage_error(tmp_path: Path, tiny_llama: Any) -> None:
    with pytest.raises(UsageError, match="no training text"):
        finetune(tiny_llama.model, tiny_llama.tokenizer, context(tmp_path, texts=()), SETTINGS)
