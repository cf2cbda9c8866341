"""Models of some ten thousand parameters, random but always the same, and a tokenizer that needs no training."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from harness.plugins import Released

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def byte_tokenizer() -> PreTrainedTokenizerBase:
    """A byte-level tokenizer of 259 tokens: no training, every text round-trips."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {"<eos>": 0, "<pad>": 1, "<unk>": 2} | {char: index + 3 for index, char in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>")


def random_llama(seed: int = 0, **changes: int) -> PreTrainedModel:
    """A two-layer Llama over the byte tokenizer's vocabulary, randomly initialised from `seed`.

    Args:
        seed: of the weights.
        **changes: fields of `LlamaConfig`.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    shape = {
        "vocab_size": 260,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
    } | changes
    return LlamaForCausalLM(LlamaConfig(**shape, bos_token_id=0, eos_token_id=0, pad_token_id=1)).eval()


def random_gpt2(seed: int = 0) -> PreTrainedModel:
    """Two layers with Conv1D matrices, biases and tied embeddings; no dropout, so that runs can be compared."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    return GPT2LMHeadModel(GPT2Config(vocab_size=260, n_embd=32, n_layer=2, n_head=4, n_positions=256, bos_token_id=0,
                                      eos_token_id=0, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)).eval()  # fmt: skip


@functools.cache
def _locked_llama() -> PreTrainedModel:
    from harness import registry
    from harness.testing.cases import lock_context

    kind = registry.defenses().get("specdef_reparam")
    settings = kind.Settings.parse({"alpha": 4.0, "k": 4, "count": 4, "heldout_tokens": 256}, "defense")
    return kind(settings).lock(released(random_llama()), lock_context()).model


def locked_llama() -> PreTrainedModel:
    """`random_llama` under a lock that puts two matrices in the place of some (`specdef_reparam`)."""
    import copy

    return copy.deepcopy(_locked_llama())


def released(model: PreTrainedModel | Any, name: str = "case", lock: dict[str, Any] | None = None) -> Released:
    """`model` as others get it, on the device of the tests, with the byte tokenizer."""
    from harness.models.digest import weights_digest
    from harness.testing.cases import device_under_test

    model = model.to(device_under_test())

    return Released(model=model, tokenizer=byte_tokenizer(), digest=weights_digest(model), name=name, lock=lock)
