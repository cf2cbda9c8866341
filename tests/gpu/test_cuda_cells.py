"""Whole cells on a CUDA device: the same answers as on the CPU, the device's own meters, the same bits again.

The conformance kit runs there by `HARNESS_TEST_DEVICE=cuda pytest tests/attacks/test_attacks_all.py
tests/defenses/test_conformance.py`.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from cell_cases import QUICK

from harness import probes
from harness.cache import Cache
from harness.cell import run_cell
from harness.progress import Progress
from harness.records.record import Record
from harness.spec import resolve
from harness.testing import byte_tokenizer, random_llama
from harness.workshop import Workshop

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(probes.check("cuda")), reason=str(probes.check("cuda")))]

WIDE = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 8, "num_attention_heads": 8}
"""Some 100 million parameters, 420 MB in float32; its largest matrix has 12 MB."""
ROOM = 256 << 20
"""Bytes of the device in the tests of a model that is too large for it."""


def saved(folder: Path, **shape: int) -> str:
    random_llama(**shape).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


def cell(model: str, folder: Path, **changes: Any) -> Record:
    """A cell of two seeds of six steps, everything in `folder`."""
    merged = {**QUICK, "device": "cuda", **changes, "model": {"name": model}}
    merged["attack"] = {**QUICK["attack"], **changes.get("attack", {})}
    workshop = Workshop(cache=Cache(folder / "cache"), data_dir=None, progress=Progress(quiet=True))
    return run_cell(resolve(merged), out=folder / "results", workshop=workshop)


def scores(record: Record) -> list[float]:
    assert record.status == "complete", record.status_reason
    assert not record.errors
    side = record.score
    return [side.base.value, side.locked.value, side.attacked.value, side.reference.value]


@pytest.mark.parametrize("defense", [
    {"name": "none"}, {"name": "specdef_reparam"},
    {"name": "dlr", "depth": 4, "module_steps": 20, "cascade_steps": 20, "polish_steps": 20},
], ids=lambda defense: str(defense["name"]))  # fmt: skip
def test_a_cell_says_on_cuda_what_it_says_on_the_cpu(defense: dict[str, Any], tmp_path: Path) -> None:
    model = saved(tmp_path / "model")
    on = {device: cell(model, tmp_path / device, device=device, defense=defense) for device in ("cpu", "cuda")}
    assert scores(on["cuda"]) == pytest.approx(scores(on["cpu"]), rel=0.02)
    bills = [on[device].cost.attack for device in ("cpu", "cuda")]
    assert bills[0] is not None
    assert bills[1] is not None
    assert (bills[0].tokens, bills[0].steps) == (bills[1].tokens, bills[1].steps)
    # A fused attention kernel repeats one product of five in its backward pass; the device chooses the kernel.
    assert bills[1].flops == pytest.approx(bills[0].flops, rel=0.05)
    assert (bills[1].peak_device_bytes or 0) > 0
    if probes.check("energy") is None:
        assert (bills[1].energy_joules or 0) > 0
    assert on["cuda"].provenance.machine.device == torch.cuda.get_device_name()
    assert on["cpu"].provenance.machine.device is None


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_cell_again_has_the_same_bits(precision: str, tmp_path: Path) -> None:
    """Long sequences, on which attention's backward pass adds up in any order unless it is told not to."""
    model = saved(tmp_path / "model", max_position_embeddings=1024)
    given = {"precision": precision, "attack": {"block_size": 1024}}
    first, again = (cell(model, tmp_path / part, **given) for part in ("first", "again"))
    assert again.provenance.weights == first.provenance.weights
    assert scores(again) == scores(first)


def test_the_memory_budget_is_the_allocators(tmp_path: Path) -> None:
    record = cell(saved(tmp_path / "model"), tmp_path, budget={"memory": 600 << 10})
    assert record.status == "out_of_memory", record.status_reason


def test_what_others_keep_on_the_device_is_not_the_attackers(tmp_path: Path) -> None:
    budget = {"memory": 100 << 20}
    alone = cell(saved(tmp_path / "model"), tmp_path / "alone", budget=budget)
    others = torch.zeros(200 << 20, dtype=torch.uint8, device="cuda")
    beside = cell(str(tmp_path / "model"), tmp_path / "beside", budget=budget)
    assert others.is_cuda
    assert scores(beside) == scores(alone)
    peaks = [record.cost.attack.peak_device_bytes for record in (alone, beside) if record.cost.attack]
    assert peaks[0] == pytest.approx(peaks[1], rel=0.05)
    assert 0 < (peaks[0] or 0) < 100 << 20


def test_bf16_trains_on_master_weights_in_float32(tmp_path: Path) -> None:
    model = saved(tmp_path / "model")
    on = {precision: cell(model, tmp_path / precision, precision=precision) for precision in ("fp32", "bf16")}
    assert scores(on["bf16"]) == pytest.approx(scores(on["fp32"]), rel=0.05)
    assert on["bf16"].provenance.weights.attacked != on["fp32"].provenance.weights.attacked


@pytest.fixture
def small_device() -> Any:
    """A device with `ROOM` bytes."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(ROOM / torch.cuda.get_device_properties(0).total_memory)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_weights_too_large_for_the_device_are_carried_there(tmp_path: Path, small_device: Any) -> None:
    from harness.models.load import load_model
    from harness.models.placement import carrier_of, on_device
    from harness.tasks.loglikelihood import text_logprobs

    name, texts = saved(tmp_path / "model", **WIDE), ["def f(x):\n    return x", "the cat sat on the mat"]
    large = load_model(name, device="cuda")
    assert large.model.device.type == "cpu"
    torch.cuda.reset_peak_memory_stats()
    with on_device(large.model, "cuda"):
        assert carrier_of(large.model) is not None
        carried = text_logprobs(large, texts)
    assert 0 < torch.cuda.max_memory_allocated() < ROOM
    torch.cuda.set_per_process_memory_fraction(1.0)
    lying = text_logprobs(load_model(name, device="cuda"), texts)
    assert [value for value, _ in carried] == pytest.approx([value for value, _ in lying], rel=1e-4)


@pytest.mark.skipif(bool(probes.check("deepspeed")), reason="deepspeed cannot run here")
def test_a_model_too_large_for_the_device_is_attacked_by_offload_alone(tmp_path: Path, small_device: Any) -> None:
    """A whole cell: base and attacked model are scored by carrying, ZeRO-3 trains with one module on the device."""
    name = saved(tmp_path / "model", **WIDE)
    quick = {"max_steps": 3, "eval_points": 1, "learning_rate": 1e-4}
    shared = {"replicates": 1, "precision": "fp32"}
    full = cell(name, tmp_path, attack=quick, **shared)
    assert full.status == "out_of_memory", full.status_reason
    record = cell(name, tmp_path, attack={**quick, "name": "offload", "zero_stage": 3}, **shared)
    assert record.status == "complete", record.status_reason
    assert record.cost.attack is not None
    assert (record.cost.attack.peak_device_bytes or 0) < ROOM
    assert record.score.attacked.value > record.score.base.value
