"""A few steps of the training loop on the random Llama."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.budget import Budget
from harness.meters.meter import Meter
from harness.packing import PackedBlocks
from harness.plugins import Context
from harness.testing import random_llama
from harness.training import TrainResult, TrainSettings, train

SETTINGS = TrainSettings(max_steps=8, learning_rate=3e-3, per_device_train_batch_size=4, block_size=32, eval_points=4)


def batches(settings: TrainSettings = SETTINGS, seed: int = 0) -> PackedBlocks:
    """Random tokens, packed."""
    tokens = np.random.default_rng(7).integers(0, 64, 4000)
    return PackedBlocks(tokens, block_size=settings.block_size, batch_size=settings.per_device_train_batch_size,
                        accumulate=settings.gradient_accumulation_steps, seed=seed)  # fmt: skip


def context(folder: Path, budget: str = "", seed: int = 0, **options: Any) -> Context:
    """On the CPU."""
    return Context(seed=seed, device="cpu", folder=folder, meter=Meter(Budget.from_text(budget)), **options)


def run(
    folder: Path, settings: TrainSettings = SETTINGS, budget: str = "", **options: Any
) -> tuple[Any, TrainResult, Meter]:
    """Train the random Llama."""
    model, ctx = random_llama(), context(folder, budget)
    return model, train(model, batches(settings), settings, ctx, **options), ctx.meter


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Copies."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    """Bit for bit."""
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
