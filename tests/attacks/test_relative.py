"""Steps relative to the size of a tensor: a release that was rescaled trains as the one that was not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from attack_cases import build, context, released

from attacks.relative import OF_ZEROS, root_mean_squares
from harness.testing import random_llama


@torch.no_grad()
def rescaled(stream: float, gain: float) -> Any:
    """The same function as `random_llama()`: the residual stream and the norms' gains in other units.

    In powers of two nothing is rounded.
    """
    model: Any = random_llama(rms_norm_eps=0.0)
    model.model.embed_tokens.weight.mul_(stream)
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        for writer in (attention.o_proj, mlp.down_proj):
            writer.weight.mul_(stream)
        for norm, readers in ((layer.input_layernorm, (attention.q_proj, attention.k_proj, attention.v_proj)),
                              (layer.post_attention_layernorm, (mlp.gate_proj, mlp.up_proj))):  # fmt: skip
            norm.weight.mul_(gain)
            for reader in readers:
                reader.weight.div_(gain)
    if model.config.tie_word_embeddings:
        model.model.norm.weight.div_(stream)
    return model


@pytest.mark.parametrize(("stream", "gain"), [(1024.0, 1024.0), (2.0**-12, 2.0**8), (1.0, 2.0**-16)])
def test_a_rescaled_release_is_the_same_and_trains_alike(stream: float, gain: float) -> None:
    ids = torch.arange(3, 27).view(1, 24)
    models = [rescaled(1.0, 1.0), rescaled(stream, gain)]
    with torch.no_grad():
        first, second = (model.eval()(input_ids=ids).logits for model in models)
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)
    attack = build("relative", max_steps=12, learning_rate=2e-2)
    losses = [attack.attack(released(model), context()).training.losses for model in models]
    assert losses[1] == pytest.approx(losses[0], rel=2e-3)
    assert losses[0][-1] < losses[0][0] - 0.1
    plain = build("full", max_steps=12).attack(released(rescaled(stream, gain)), context()).training.losses
    assert abs(plain[-1] - losses[0][-1]) > 0.05  # steps of one size in all tensors are another attack there


def test_sizes_are_those_of_what_trains_and_zeros_have_one() -> None:
    model = random_llama()
    with torch.no_grad():
        model.model.norm.weight.zero_()
    model.model.embed_tokens.weight.requires_grad_(False)
    sizes = root_mean_squares(model)
    assert "model.embed_tokens.weight" not in sizes
    assert sizes["model.norm.weight"] == OF_ZEROS
    weight = model.model.layers[0].mlp.up_proj.weight
    assert sizes["model.layers.0.mlp.up_proj.weight"] == pytest.approx(float(weight.detach().square().mean().sqrt()))
