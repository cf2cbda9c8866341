"""What SpecDef's spectral term adds to a training step, and what a full SVD would add.

    python benchmarks/specdef_step.py [--layers 30] [--tokens 1024] [--repeats 3] [--threads 1] [--json FILE]

A random Llama of SmolLM2-135M's shape. A plain AdamW step and the same step with the lock's term take turns; the ratio
is the median over pairs, which cancels slow drifts of the machine. The KL of `retain=kl` (a pass of the base) is
timed apart: it is the retain loss's cost, not the spectrum's. The SVD (with the vectors that a gradient needs) is timed
once for each shape and multiplied by the number of matrices. FLOPs are counted by the harness; for the SVD, which it
does not count, they are Golub & Van Loan's 6 m n^2 + 20 n^3 (m >= n).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from defenses.specdef.spectrum import TopSingularValues, as_matrix, matrices
from harness.meters.flops import FlopCounter


def main() -> None:
    """Time, count, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in (("layers", 30), ("tokens", 1024), ("repeats", 3), ("threads", 1), ("k", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = measure(options)
    print(json.dumps(found, indent=1))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All numbers of one run."""
    model = smollm2_shape(options.layers)
    ids = torch.randint(model.config.vocab_size, (max(1, options.tokens // 128), 128))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    top = TopSingularValues(matrices(model), options.k)

    def step(spectral: bool) -> None:
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        if spectral:
            loss = 0.5 * loss - 0.5 * torch.cat(list(top().values())).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def teacher() -> None:
        model(input_ids=ids, use_cache=False)

    flops = {name: count(call) for name, call in (("plain", lambda: step(False)), ("specdef", lambda: step(True)),
                                                  ("teacher", teacher))}  # fmt: skip
    pairs = [(seconds(lambda: step(False)), seconds(lambda: step(True))) for _ in range(options.repeats)]
    plain = statistics.median(pair[0] for pair in pairs)
    svd_seconds, svd_flops = full_svd(model)
    return {
        "model": "SmolLM2-135M's shape, random", "layers": options.layers, "matrices": len(top.weights),
        "tokens": ids.numel(), "k": options.k, "threads": options.threads, "repeats": options.repeats,
        "flops": flops | {"svd": svd_flops}, "plain_seconds": plain,
        "time_ratio": {"specdef": statistics.median(b / a for a, b in pairs),
                       "teacher": 1 + seconds(teacher) / plain, "svd": 1 + svd_seconds / plain},
        "flop_ratio": {"specdef": flops["specdef"] / flops["plain"], "teacher": 1 + flops["teacher"] / flops["plain"],
                       "svd": 1 + svd_flops / flops["plain"]},
    }  # fmt: skip


def smollm2_shape(layers: int) -> Any:
    """A random Llama as wide as SmolLM2-135M; 30 layers are as deep."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=layers, num_attention_heads=9,
        num_key_value_heads=3, tie_word_embeddings=True, max_position_embeddings=2048))  # fmt: skip


def full_svd(model: Any) -> tuple[float, float]:
    """Seconds and FLOPs of an SVD of every matrix."""
    shapes = Counter(tuple(as_matrix(weight).shape) for weight in matrices(model).values())
    one = {tuple(as_matrix(weight).shape): as_matrix(weight.detach()) for weight in matrices(model).values()}
    spent = sum(seconds(lambda shape=shape: torch.linalg.svd(one[shape], full_matrices=False)) * number
                for shape, number in shapes.items())  # fmt: skip
    flops = sum((6 * max(shape) * min(shape) ** 2 + 20 * min(shape) ** 3) * number for shape, number in shapes.items())
    return spent, float(flops)


def count(call: Callable[[], Any]) -> int:
    """Counted FLOPs of a call."""
    with FlopCounter() as counter:
        call()
    return counter.total


def seconds(call: Callable[[], Any]) -> float:
    """Seconds of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
