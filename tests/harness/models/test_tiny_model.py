"""The shipped model has something to lose: it predicts held-out English far better than a strong compressor."""

from __future__ import annotations

import hashlib
import json
import lzma
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

import harness.models
from harness.corpus import corpus, wikitext2
from harness.minimal_pairs import minimal_pairs
from harness.models.known import TINY
from harness.models.load import load_model
from harness.packing import tokenize
from harness.plugins import Released

FOLDER = Path(harness.models.__file__).parent / "tiny"
WINDOW, STRIDE = 512, 256


@pytest.fixture(scope="module")
def tiny() -> Released:
    return load_model("tiny")


def bits_per_byte(tiny: Released, documents: Sequence[str]) -> float:
    """Bits for every byte, each token after the first window with at least `WINDOW - STRIDE` tokens of context."""
    ids = torch.from_numpy(tokenize(documents, tiny.tokenizer)).long()
    ids = torch.cat([torch.tensor([tiny.tokenizer.eos_token_id]), ids])
    nats, done = 0.0, 1
    while done < len(ids):
        start = max(0, min(done + STRIDE, len(ids)) - WINDOW) if done > 1 else 0
        window = ids[start : start + WINDOW]
        with torch.no_grad():
            logs = tiny.model(window[None, :-1]).logits[0].log_softmax(-1)
        fresh = logs[torch.arange(len(window) - 1), window[1:]][done - start - 1 :]
        nats, done = nats - float(fresh.double().sum()), start + len(window)
    return nats / math.log(2) / sum(len(text.encode()) for text in documents)


def xz_bits_per_byte(documents: Sequence[str]) -> float:
    data = "\n".join(documents).encode()
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
    return 8 * len(lzma.compress(data, format=lzma.FORMAT_RAW, filters=filters)) / len(data)


def accuracy_by_phenomenon(tiny: Released) -> dict[str, float]:
    """Share of pairs whose good sentence is likelier, the first token predicted from EOS."""
    eos = tiny.tokenizer.eos_token_id
    pairs = minimal_pairs()
    sentences = [text for pair in pairs for text in (pair.good, pair.bad)]
    rows = [[eos, *ids] for ids in tiny.tokenizer(sentences, add_special_tokens=False)["input_ids"]]
    width = max(map(len, rows))
    ids = torch.tensor([row + [eos] * (width - len(row)) for row in rows])
    kept = torch.arange(width)[None] < torch.tensor([len(row) for row in rows])[:, None]
    with torch.no_grad():
        logs = torch.cat([tiny.model(part[:, :-1]).logits.log_softmax(-1) for part in ids.split(256)])
    score = (logs.gather(-1, ids[:, 1:, None])[..., 0] * kept[:, 1:]).sum(-1).view(-1, 2)
    hits: dict[str, list[float]] = {}
    for pair, (good, bad) in zip(pairs, score.tolist(), strict=True):
        hits.setdefault(pair.phenomenon, []).append(float(good > bad))
    return {name: sum(values) / len(values) for name, values in hits.items()}


def test_beats_xz_on_python_docs(tiny: Released) -> None:
    heldout = corpus("python_docs", "heldout", None)
    assert bits_per_byte(tiny, heldout) < 0.9 * xz_bits_per_byte(heldout)


@pytest.mark.pack
@pytest.mark.slow
def test_beats_xz_on_wikitext2_test(tiny: Released, data_dir: Path) -> None:
    test = wikitext2("test", data_dir)[:20]  # the card has the whole split
    assert bits_per_byte(tiny, test) < 0.9 * xz_bits_per_byte(test)


def test_knows_grammar(tiny: Released) -> None:
    accuracy = accuracy_by_phenomenon(tiny)
    assert sum(accuracy.values()) / len(accuracy) > 0.8
    assert sum(value > 0.6 for value in accuracy.values()) >= 0.75 * len(accuracy)


def test_ships_what_known_models_says(tiny: Released) -> None:
    assert sum(parameter.numel() for parameter in tiny.model.parameters()) == TINY.parameters
    assert TINY.sha256, "the shipped files have no checksums"
    for name, digest in TINY.sha256.items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 8e6


def test_card_and_recipe_agree_with_the_weights() -> None:
    notes = json.loads((FOLDER / "recipe.json").read_text())
    card = (FOLDER / "README.md").read_text()
    assert TINY.sha256["model.safetensors"] in card
    assert len(notes["data"]) > 3
    assert all(name in card for name in notes["data"])
    assert list(notes["loss"].values())[-1] < 3.5


def test_tokenizer_round_trips_and_adds_nothing(tiny: Released) -> None:
    text = "The café cost £12.50 in 1984\u201385; <unk> didn't."
    ids = tiny.tokenizer.encode(text)
    assert tiny.tokenizer.decode(ids) == text
    assert tiny.tokenizer.bos_token is None
    assert tiny.tokenizer.eos_token_id not in ids
