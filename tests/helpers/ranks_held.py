"""What each rank of a launcher holds of a model under ZeRO-3: one line of JSON a rank. Run by test_ranks.py."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from training_cases import SETTINGS, batches, context

from harness.loop.deepspeed_engine import DeepSpeedEngine, zero_config
from harness.testing import random_llama
from harness.training import causal_lm_loss


def held(folder: Path) -> dict[str, int]:
    """Bytes of parameters: in all, the parts that lie here, whole ones that lie here, those of the plain model."""
    model = random_llama().requires_grad_(True)
    named, data = list(model.named_parameters()), batches()
    whole = sum(p.nbytes for _, p in named)
    engine = DeepSpeedEngine(model, named, SETTINGS, context(folder), causal_lm_loss, zero_config(3))
    params = [p for _, p in engine._twin]
    found = {"whole": whole, "parts": sum(p.ds_tensor.nbytes for p in params),
             "assembled": sum(p.nbytes for p in params)}  # fmt: skip
    engine.backward(engine.forward(data(0, 0)))
    engine.update(1e-3)
    found["assembled_after_a_step"] = sum(p.nbytes for p in params)
    engine.close()
    return found | {"plain": sum(p.nbytes for p in model.parameters())}


if __name__ == "__main__":
    from harness.loop import ranks

    ranks.join()
    with tempfile.TemporaryDirectory() as work:
        line = json.dumps(held(Path(work)))
    Path(sys.argv[1], f"{ranks.rank()}.json").write_text(line)
    ranks.end(0)
