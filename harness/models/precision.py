"""Whether a model still computes what it computes when its products are taken in bfloat16.

A lock may need more digits than that (`specdef_reparam` multiplies what it divides elsewhere). An attacker sees at once
that his model is not the released one under autocast, and trains in fp32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS = 64
SPOILT = 0.2
"""Relative error of the outputs about their mean; rounding of an ordinary model makes a tenth of it at most."""


def survives_bf16(model: PreTrainedModel) -> bool:
    """Whether the outputs on random tokens are the same under autocast; of a model without tokens, yes."""
    import torch

    embeddings = model.get_input_embeddings()
    if not isinstance(embeddings, torch.nn.Embedding):
        return True
    device = embeddings.weight.device
    generator = torch.Generator().manual_seed(0)
    length = min(TOKENS, getattr(model.config.get_text_config(), "max_position_embeddings", TOKENS))
    ids = torch.randint(embeddings.num_embeddings, (1, length), generator=generator).to(device)
    training = model.training
    model.eval()
    with torch.no_grad():
        exact = model(input_ids=ids).logits.float()
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):  # no second copy of all weights
            rounded = model(input_ids=ids).logits.float()
    model.train(training)
    spread = exact - exact.mean(-1, keepdim=True)
    return float((rounded - exact).norm()) < SPOILT * float(spread.norm())
