"""Our training loop against transformers.Trainer (and PEFT): time, peak memory, share of the matrix-multiply rate.

The same model (Llama, 1.25 M parameters), the same tokens, settings and precision, one fresh process a run, the sides
taking turns. Timed from the built model to the trained one, what each side sets up for itself included. Run it on
a machine that does nothing else; `--json docs/data/training_speed.json` is what docs/measured.md shows. The stages of
DLR-Lock have no counterpart in the Trainer: only their share of the matrix-multiply rate is measured.

    python benchmarks/training_speed.py [--repeats 5] [--steps 60] [--threads 2] [--device cuda] [--json FILE]

On a GPU the model has SmolLM2-135M's shape (30 layers), on sequences of 1,024 tokens; the lock's stages are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BATCH, VOCAB, RATE = 8, 2048, 1e-3
LENGTH = {"cpu": 128, "cuda": 1024}
SHAPE = {"cpu": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 5, "num_attention_heads": 4,
                 "num_key_value_heads": 2, "vocab_size": VOCAB},
         "cuda": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
                  "num_key_value_heads": 3, "vocab_size": 49152}}  # fmt: skip
METHODS, PRECISIONS, SIDES = ("full", "lora"), ("fp32", "bf16"), ("ours", "trainer")
STAGES = ("module", "polish")
"""Of DLR-Lock: module-wise distillation, and the end-to-end polish."""


def main() -> None:
    """Run all pairs and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--device", choices=tuple(SHAPE), default="cpu")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=3, metavar=("SIDE", "METHOD", "PRECISION"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(_child(*options.child, options.device, steps=options.steps)))
        return
    pairs = [_pair(method, precision, options) for method in options.methods for precision in PRECISIONS]
    locks = [_stage(stage, options) for stage in STAGES if options.device == "cpu"]
    from tabulate import tabulate

    for rows in (pairs, locks):
        print(tabulate(rows, headers="keys", floatfmt=".3g"), end="\n\n")
    if options.json:
        options.json.write_text(json.dumps({"pairs": pairs, "locks": locks}, indent=1) + "\n")


def _stage(stage: str, options: argparse.Namespace) -> dict[str, Any]:
    """One stage of the lock of the shipped model, start and held-out checks included."""
    runs = [_spawn("ours", stage, "fp32", options) for _ in range(options.repeats)]
    return {"stage": stage, "seconds": min(run["seconds"] for run in runs),
            "share of matmul rate": statistics.median(run["share"] for run in runs), "steps": options.steps,
            "repeats": options.repeats, "threads": options.threads}  # fmt: skip


def _pair(method: str, precision: str, options: argparse.Namespace) -> dict[str, Any]:
    """Ours and the Trainer in turns; the ratio is the median over pairs, which cancels slow drifts of the machine."""
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for repeat in range(options.repeats):
        for side in SIDES if repeat % 2 else reversed(SIDES):
            runs[side].append(_spawn(side, method, precision, options))
    ours, theirs = runs["ours"], runs["trainer"]

    def ratio(key: str) -> float:
        return statistics.median(a[key] / b[key] for a, b in zip(ours, theirs, strict=True))

    return {
        "method": method,
        "precision": precision,
        "ours s": min(run["seconds"] for run in ours),
        "trainer s": min(run["seconds"] for run in theirs),
        "time ratio": ratio("seconds"),
        "CPU time ratio": ratio("cpu_seconds"),
        "ours MiB": statistics.median(run["peak_mib"] for run in ours),
        "trainer MiB": statistics.median(run["peak_mib"] for run in theirs),
        "share of matmul rate": statistics.median(run["share"] for run in ours),
        "trainer share": statistics.median(run["share"] for run in theirs),
        "last loss": ours[0]["last_loss"],
        "trainer last loss": theirs[0]["last_loss"],
        "steps": options.steps,
        "repeats": options.repeats,
        "threads": options.threads,
    }


def _spawn(side: str, method: str, precision: str, options: argparse.Namespace) -> dict[str, float]:
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, "--steps", str(options.steps), "--device", options.device,
               "--child", side, method, precision]  # fmt: skip
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"{side} {method} {precision}: {result['seconds']:.1f} s, CPU {result['cpu_seconds']:.1f} s", file=sys.stderr)
    return result


def _child(side: str, method: str, precision: str, device: str, *, steps: int) -> dict[str, float]:
    import torch

    if method in STAGES:
        return _lock(method, steps)

    model, batches = _model(method, device), _batches(device)
    before = _matmul_rate(precision, device)
    with tempfile.TemporaryDirectory() as folder:
        start, cpu = time.perf_counter(), time.process_time()
        run = _ours if side == "ours" else _trainer
        last = run(model, batches, Path(folder), steps, precision == "bf16", device)
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**20
    flops = steps * _flops(_model(method, device), batches)
    rate = max(before, _matmul_rate(precision, device))
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mib": peak, "last_loss": last,
            "share": flops / seconds / rate, "threads": torch.get_num_threads()}  # fmt: skip


def _lock(stage: str, steps: int) -> dict[str, float]:
    from dlr_runs import lock

    from defenses.dlr import DLRSettings

    lengths = {f"{name}_steps": steps if name == stage else 0 for name in STAGES}
    before, cpu = _matmul_rate("fp32"), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        _, bill, _ = lock(DLRSettings(self_generated=0.0, **lengths), argparse.Namespace(
            model="tiny", corpus="python_docs", seed=0, data_dir=None, work=Path(folder)))  # fmt: skip
    cpu_seconds = time.process_time() - cpu
    rate = max(before, _matmul_rate("fp32"))
    return {"seconds": bill.seconds, "cpu_seconds": cpu_seconds, "share": bill.flops / bill.seconds / rate}


def _model(method: str, device: str) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(**SHAPE[device], tie_word_embeddings=True, max_position_embeddings=4 * LENGTH[device])
    model = LlamaForCausalLM(config).to(device)
    if method == "full":
        return model
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))


def _batches(device: str) -> Any:
    import numpy as np

    from harness.packing import PackedBlocks

    ramp = np.arange(400_000) % 997  # learnable, so that the losses of both sides mean something
    return PackedBlocks((ramp * 2039) % VOCAB, block_size=LENGTH[device], batch_size=BATCH, seed=0)


def _ours(model: Any, batches: Any, folder: Path, steps: int, bf16: bool, device: str) -> float:
    from harness.meters.meter import Meter
    from harness.plugins import Context
    from harness.training import TrainSettings, train

    context = Context(seed=0, device=device, folder=folder, meter=Meter(), bf16=bf16)
    settings = TrainSettings(learning_rate=RATE, max_steps=steps, per_device_train_batch_size=BATCH,
                             block_size=LENGTH[device])  # fmt: skip
    return train(model, batches, settings, context).losses[-1]


def _trainer(model: Any, batches: Any, folder: Path, steps: int, bf16: bool, device: str) -> float:
    from transformers import Trainer, TrainingArguments, default_data_collator

    from harness.loop.schedule import warmup_steps

    micros = [batches(step, 0) for step in range(steps)]
    rows = [{key: value[row] for key, value in micro.items()} for micro in micros for row in range(BATCH)]
    arguments = TrainingArguments(
        output_dir=str(folder), use_cpu=device == "cpu", bf16=bf16, per_device_train_batch_size=BATCH, max_steps=steps,
        learning_rate=RATE, lr_scheduler_type="cosine", warmup_steps=warmup_steps(steps, 0.05), weight_decay=0.0,
        optim="adamw_torch_fused", max_grad_norm=1.0, logging_steps=1, save_strategy="no", report_to=[],
        disable_tqdm=True, seed=0, train_sampling_strategy="sequential")  # fmt: skip
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=default_data_collator)
    trainer.train()
    return float([entry["loss"] for entry in trainer.state.log_history if "loss" in entry][-1])


def _flops(model: Any, batches: Any) -> int:
    import torch

    from harness.meters.micro import measure_micro

    params = list(model.parameters())
    batch = {key: value.to(params[0].device) for key, value in batches(0, 0).items()}
    _, cost = measure_micro(lambda: model(**batch, use_cache=False).loss, torch.Tensor.backward, params)
    return cost.forward_flops + cost.backward_flops


def _matmul_rate(precision: str, device: str = "cpu", seconds: float = 1.0) -> float:
    """FLOPs a second of a square product, the fastest of many."""
    import torch

    size = 1024 if device == "cpu" else 8192
    a = torch.randn(size, size, dtype=torch.bfloat16 if precision == "bf16" else torch.float32, device=device)
    best, stop = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < stop:
        start = time.perf_counter()
        torch.mm(a, a)
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


if __name__ == "__main__":
    main()
