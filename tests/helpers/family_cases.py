"""Small random models of every family that a lock may meet."""

from __future__ import annotations

from typing import Any

import torch

HIDDEN, LAYERS, VOCAB = 16, 2, 64
LLAMA = {"hidden_size": HIDDEN, "intermediate_size": 24, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 4, "max_position_embeddings": 32}  # fmt: skip
PLAIN = {key: value for key, value in LLAMA.items() if key not in ("head_dim", "num_key_value_heads")}
GPT = {"n_embd": HIDDEN, "n_layer": LAYERS, "n_head": 4, "n_positions": 32}
SHAPES: dict[str, dict[str, Any]] = {
    "llama": LLAMA, "mistral": LLAMA, "qwen2": LLAMA, "qwen3": LLAMA, "gemma": LLAMA, "gemma2": LLAMA,
    "gemma3_text": LLAMA, "phi": PLAIN, "phi3": PLAIN | {"pad_token_id": 0}, "olmo2": PLAIN,
    "smollm3": PLAIN | {"pad_token_id": 0}, "stablelm": PLAIN | {"num_key_value_heads": 4},
    "starcoder2": PLAIN | {"num_key_value_heads": 2}, "gpt_neox": PLAIN, "gpt2": GPT,
    "gptj": GPT | {"rotary_dim": 4}, "gpt_bigcode": GPT,
    "opt": {"hidden_size": HIDDEN, "ffn_dim": 24, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
            "max_position_embeddings": 32, "word_embed_proj_dim": HIDDEN},
    "opt-350m": {"hidden_size": HIDDEN, "ffn_dim": 24, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
                 "max_position_embeddings": 32, "word_embed_proj_dim": 8, "do_layer_norm_before": False},
}  # fmt: skip


def build(kind: str) -> Any:
    """A random one of `SHAPES`."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind.partition("-")[0], vocab_size=VOCAB, **SHAPES[kind])
    return AutoModelForCausalLM.from_config(config).eval()
