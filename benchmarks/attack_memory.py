"""Bytes that one training step of each attack needs, on a base and on DLR-locked models of several depths.

    python benchmarks/attack_memory.py [-o docs/data/attack_memory.json] [--table]

The shape is that of the shipped model, the weights are random: bytes do not depend on them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[1] / "docs" / "data" / "attack_memory.json"
SHAPE = {"vocab_size": 2048, "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 5, "head_dim": 32,
         "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}  # fmt: skip
ATTACKS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("full", {}), ("full_8bit", {}), ("lora", {}), ("qlora", {}), ("frozen_mlp", {}),
    ("checkpointing", {"segments": 0}), ("checkpointing", {"gradient_checkpointing": False}), ("checkpointing", {}),
    ("checkpointing", {"kind": "reversible", "gradient_checkpointing": False}),
    ("checkpointing", {"kind": "reversible"}),
    ("redistill", {"undo_steps": 1, "sampled_tokens": 0}),
)  # fmt: skip
DEPTHS = (0, 16, 64)


def model(depth: int) -> Any:
    """A random model of the shipped model's shape; depth 0 is the base."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from defenses.dlr import DLRSettings
    from defenses.dlr.build import convert_to_locked

    torch.manual_seed(0)
    base = LlamaForCausalLM(LlamaConfig(**SHAPE, pad_token_id=1, eos_token_id=0))
    return convert_to_locked(base, DLRSettings(depth=depth)) if depth else base


def measure(attack_name: str, settings: dict[str, Any], depth: int) -> dict[str, Any]:
    """Bills of one optimizer step on 8 x 128 tokens."""
    import numpy as np

    from harness import registry
    from harness.meters.meter import Meter
    from harness.plugins import AttackContext, Released

    class Tokenizer:
        eos_token_id = 0

        def __call__(self, texts: list[str], **_: Any) -> dict[str, Any]:
            generator = np.random.default_rng(0)
            return {"input_ids": [generator.integers(2, 2048, 1024).tolist() for _ in texts]}

    class Noise:
        def train_texts(self) -> list[str]:
            return ["text"] * 32

    kind = registry.attacks().get(attack_name)
    attack, meter = kind(kind.Settings.parse({"max_steps": 1, **settings}, "attack")), Meter()
    with tempfile.TemporaryDirectory() as scratch:
        context = AttackContext(seed=0, device="cpu", folder=Path(scratch), meter=meter, task=Noise())  # type: ignore[arg-type]
        attack.attack(Released(model=model(depth), tokenizer=Tokenizer(), digest="", name=""), context)  # type: ignore[arg-type]
    names = ("kept_for_backward_bytes", "peak_backward_bytes", "optimizer_bytes", "gradient_bytes", "peak_device_bytes")
    row: dict[str, Any] = {name: getattr(meter.total, name) for name in names}
    attack_bill = meter.bills["attack"]
    return row | {"flops_a_step": attack_bill.flops, "undo_peak_device_bytes": meter.bills["undo"].peak_device_bytes
                  if "undo" in meter.bills else None}  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """MiB, as markdown."""
    lines = ["| attack | target | kept for backward | peak in backward | optimizer | peak on device | GFLOP a step |",
             "|---|---|---:|---:|---:|---:|---:|"]  # fmt: skip
    for row in rows:
        shown = {key: value for key, value in row["settings"].items() if key not in ("undo_steps", "sampled_tokens")}
        name = ", ".join([row["attack"], *(f"{key}={value}" for key, value in shown.items())])
        sizes = [f"{row[key] / 2**20:.1f}" for key in ("kept_for_backward_bytes", "peak_backward_bytes",
                                                        "optimizer_bytes", "peak_device_bytes")]  # fmt: skip
        target = f"depth {row['depth']}" if row["depth"] else "base"
        lines.append(f"| {name} | {target} | {' | '.join(sizes)} | {row['flops_a_step'] / 1e9:.1f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure everything and write, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=DATA)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.table:
        print(table(json.loads(options.out.read_text())["rows"]))
        return
    rows = [{"attack": name, "settings": settings, "depth": depth, **measure(name, settings, depth)}
            for name, settings in ATTACKS for depth in DEPTHS]  # fmt: skip
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"shape": SHAPE, "micro_batch": [8, 128], "rows": rows}, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
