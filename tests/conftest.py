"""Shared fixtures: a random tiny Llama with its tokenizer, the data pack, and a closed network."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("lockbench", deadline=None, derandomize=True)  # nothing is timed; a failure fails again
settings.load_profile("lockbench")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HARNESS_WORKERS", "1")  # a worker's imports cost more than the cells of the tests


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Design invariant 9: a connection to anything but this machine is an error."""
    real = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(
            ("127.", "::1", "localhost")
        ):
            raise AssertionError(f"the network is off in tests, but something connects to {address}")
        real(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The data pack's folder; tests that need it skip where it does not exist."""
    candidates = [os.environ.get("HARNESS_DATA"), Path(__file__).parents[2] / "shared" / "data"]
    for candidate in candidates:
        if candidate and (Path(candidate) / "MANIFEST.md").exists():
            return Path(candidate)
    pytest.skip("the data pack is not here (set HARNESS_DATA)")


def byte_tokenizer() -> Any:
    """A byte-level tokenizer of 260 tokens: no training, every text round-trips."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {"<eos>": 0, "<pad>": 1, "<unk>": 2} | {char: index + 3 for index, char in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>")


def random_llama(seed: int = 0, **changes: int) -> Any:
    """A two-layer Llama over the byte tokenizer's vocabulary, randomly initialised from `seed`."""
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


@pytest.fixture
def tiny_llama() -> Any:
    """A `Released` random Llama."""
    from harness.plugins import Released

    return Released(model=random_llama(), tokenizer=byte_tokenizer(), digest="0" * 64, name="tiny_llama")


@pytest.fixture
def remote_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place of this test's own for the remote code that transformers imports; what others imported is forgotten."""
    import sys

    from transformers import dynamic_module_utils

    place = tmp_path / "modules"
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(place))
    monkeypatch.syspath_prepend(place)
    for name in [name for name in sys.modules if name.partition(".")[0] == "transformers_modules"]:
        monkeypatch.delitem(sys.modules, name)
