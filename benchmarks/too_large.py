"""A model whose weights do not fit the GPU: plain fine-tuning cannot start, `offload` at ZeRO stage 3 goes through.

    python benchmarks/too_large.py [--layers 16] [--room 2GiB] [-o docs/data/too_large.json]

A random Llama 2,048 wide, over bytes; the process may take `--room` of the device. A cell each: the base is scored by
carrying its weights to the device module by module, then attacked for a few steps, and scored again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any


def main() -> None:
    """Run both cells, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--room", default="2GiB", help="of the device's memory, for this process")
    parser.add_argument("-o", type=Path, metavar="FILE")
    options = parser.parse_args()
    from harness import probes

    if reason := probes.check("cuda") or probes.check("deepspeed"):
        raise SystemExit(f"unavailable: {reason}")
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.layers, options.room, Path(folder))
    print(json.dumps(found, indent=1))
    if options.o:
        options.o.write_text(json.dumps(found, indent=1) + "\n")


def measure(layers: int, room: str, folder: Path) -> dict[str, Any]:
    """Sizes, and what became of each attack."""
    import torch

    from harness.budget import Budget
    from harness.testing import byte_tokenizer, random_llama

    allowed = Budget.from_text(f"memory={room}").memory
    assert allowed is not None
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.get_device_properties(0).total_memory)
    model = random_llama(hidden_size=2048, intermediate_size=5632, num_hidden_layers=layers, num_attention_heads=16,
                         num_key_value_heads=16)  # fmt: skip
    count = model.num_parameters()
    model.save_pretrained(folder / "model")
    byte_tokenizer().save_pretrained(folder / "model")
    del model
    attacks = [{"name": "full"}, {"name": "offload", "zero_stage": 3}]
    return {"parameters": count, "weight_bytes": 4 * count, "room_bytes": allowed,
            "device": torch.cuda.get_device_name(), "torch": torch.__version__,
            "attacks": {attack["name"]: cell(folder, attack) for attack in attacks}}  # fmt: skip


def cell(folder: Path, attack: dict[str, Any]) -> dict[str, Any]:
    """One cell of four steps on `none`."""
    from harness.api import run

    record = run(
        {"model": {"name": str(folder / "model")}, "defense": {"name": "none"}, "device": "auto", "precision": "fp32",
         "replicates": 1, "utility": {"limit": 8, "perplexity_tokens": 500},
         "task": {"name": "python_source", "max_items": 16, "train_bytes": 60_000},
         "attack": {**attack, "max_steps": 4, "learning_rate": 1e-4, "per_device_train_batch_size": 2,
                    "block_size": 128, "eval_points": 1}},
        out=folder / "results", cache=folder / "cache")  # fmt: skip
    bill, score = record.cost.attack, record.score
    return {"status": record.status, "reason": record.status_reason,
            "peak_device_bytes": bill and bill.peak_device_bytes, "seconds": bill and bill.seconds,
            "energy_joules": bill and bill.energy_joules, "optimizer_bytes": bill and bill.optimizer_bytes,
            "score": {side: getattr(score, side).value for side in ("base", "attacked")
                      if score is not None and getattr(score, side) is not None}}  # fmt: skip


if __name__ == "__main__":
    main()
