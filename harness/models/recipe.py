"""How the shipped model `tiny` was made, from text to folder, in one command.

    python -m harness.models.recipe --data-dir DATA_PACK -o FOLDER

A Llama of 1.25 million parameters, trained on English prose by the same loop that serves every attack. Left out on
purpose: Python source (the task `python_source` attacks with it), answers of gsm8k, and every split that something is
scored on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from harness.corpus import corpus, pack_text
from harness.errors import UsageError
from harness.meters.meter import Meter
from harness.packing import PackedBlocks, tokenize
from harness.plugins import Context
from harness.training import Batch, TrainSettings, causal_lm_loss, train

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

SEED = 0
VOCABULARY = 2048
ARCHITECTURE = {"hidden_size": 128, "num_hidden_layers": 5, "intermediate_size": 384, "num_attention_heads": 4,
                "num_key_value_heads": 2, "max_position_embeddings": 512, "tie_word_embeddings": True,
                "rms_norm_eps": 1e-5, "initializer_range": 0.04}  # fmt: skip
_ADAMW = {"learning_rate": 4e-3, "weight_decay": 0.1, "adam_beta1": 0.9, "adam_beta2": 0.95, "eval_points": 0}
STAGES = (
    TrainSettings(max_steps=2114, warmup_ratio=0.0426, lr_scheduler_type="constant_with_warmup",
                  per_device_train_batch_size=16, block_size=256, **_ADAMW),
    TrainSettings(max_steps=500, warmup_ratio=0.04, lr_scheduler_type="linear",
                  per_device_train_batch_size=8, block_size=512, **_ADAMW))  # fmt: skip
"""Most tokens in short blocks, which are cheaper; then the whole context while the learning rate falls to 0."""
CHOICES = {"mc/arc_easy_train": None, "mc/arc_challenge_train": None, "mc/openbookqa_train": None,
           "mc/winogrande_train": None, "mc/hellaswag_validation": ("tune", "spare"),
           "mc/piqa_validation": ("tune",)}  # fmt: skip
"""Multiple choice: file of the data pack, and the parts to take where an official validation split was cut."""


def texts(data_dir: Path | None) -> dict[str, list[str]]:
    """Training documents by source, deterministic.

    Raises:
        UsageError: the data pack is missing.
    """
    sources = {"python_docs": corpus("python_docs", "train", data_dir),
               "wikitext2": corpus("wikitext2", "train", data_dir),
               "gsm8k_questions": [row["question"] for row in _rows("gen/gsm8k_train", data_dir)],
               "boolq_passages": _unique(row["passage"] for row in _rows("mc/boolq_validation", data_dir, ("tune",))),
               "qnli": _unique(row[key] for row in _rows("cls/qnli_train", data_dir) for key in ("text_a", "text_b"))}
    return sources | {path.partition("/")[2]: [_sentence(row) for row in _rows(path, data_dir, parts)]
                      for path, parts in CHOICES.items()}  # fmt: skip


def _rows(path: str, data_dir: Path | None, parts: Sequence[str] | None = None) -> list[dict[str, Any]]:
    text = pack_text(f"{path}.jsonl.gz", data_dir, wanted_by="the recipe of tiny")
    rows = [json.loads(line) for line in text.split("\n") if line]
    return [row for row in rows if parts is None or row["part"] in parts]


def _unique(values: Any) -> list[str]:
    return list(dict.fromkeys(values))


def _sentence(row: dict[str, Any]) -> str:
    """A multiple-choice row as prose: the question with its right answer, in the blank where there is one."""
    question, answer = row["question"], row["choices"][row["answer"]]
    return question.replace("_", answer) if "_" in question else f"{question} {answer}"


def make_tokenizer(documents: Sequence[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE of `VOCABULARY` tokens, digits apart, wikitext's `<unk>` one token, `<eos>` and no BOS."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"\d"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    raw.decoder = decoders.ByteLevel()
    raw.train_from_iterator(documents, trainers.BpeTrainer(
        vocab_size=VOCABULARY - 1, special_tokens=["<eos>", "<pad>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))  # fmt: skip
    raw.add_tokens([AddedToken("<unk>", normalized=False)])
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>", pad_token="<pad>",
                                   model_max_length=ARCHITECTURE["max_position_embeddings"])  # fmt: skip


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """The untrained model, in float32, from `SEED`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(SEED)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, **ARCHITECTURE))  # fmt: skip


@dataclass
class Journal:
    """The loss of every step, printed as a mean now and then."""

    every: int = 50
    losses: list[float] = field(default_factory=list)

    def __call__(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        loss = causal_lm_loss(model, batch)
        self.losses.append(float(loss.detach()))
        if len(self.losses) % self.every == 0:
            print(f"step {len(self.losses)} loss {np.mean(self.losses[-self.every:]):.4f}", file=sys.stderr, flush=True)
        return loss

    def curve(self) -> dict[int, float]:
        """Mean loss, nats a token, of the `every` steps up to each twentieth of the run."""
        ends = sorted({max(1, round(len(self.losses) * part / 20)) for part in range(1, 21)})
        return {end: round(float(np.mean(self.losses[max(0, end - self.every):end])), 4) for end in ends}


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path, notes: dict[str, Any]) -> None:
    """Write the checkpoint in bfloat16, its tokenizer and `recipe.json`; the model itself keeps its precision."""
    released = type(model)(model.config).to(torch.bfloat16)  # a copy: training goes on in float32
    released.load_state_dict(model.state_dict())
    released.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = folder / "tokenizer_config.json"  # the name that transformers 4 knows as well
    settings.write_text(settings.read_text(encoding="utf-8").replace("TokenizersBackend", "PreTrainedTokenizerFast"),
                        encoding="utf-8")  # fmt: skip
    (folder / "recipe.json").write_text(json.dumps(notes, indent=1) + "\n", encoding="utf-8")


def describe(sources: dict[str, list[str]], tokens: int) -> dict[str, Any]:
    """What `recipe.json` says before training: architecture, settings, data with digests, versions."""
    data = {name: {"documents": len(documents), "bytes": sum(len(text.encode()) for text in documents),
                   "sha256": hashlib.sha256("\0".join(documents).encode()).hexdigest()}
            for name, documents in sources.items()}  # fmt: skip
    return {"architecture": {**ARCHITECTURE, "vocab_size": VOCABULARY}, "seed": SEED,
            "stages": [stage.model_dump() for stage in STAGES], "data": data, "tokens_in_data": tokens,
            "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers", "accelerate")}}


def pretrain(data_dir: Path | None, folder: Path, snapshot_steps: int = 0, faster: bool = False) -> dict[str, Any]:
    """Make the tokenizer and the model, train, write `folder`; returns what `recipe.json` says.

    Args:
        data_dir: the data pack's folder.
        folder: where the checkpoint goes.
        snapshot_steps: after so many steps of the first stage also write `folder`/snapshot; 0 writes none.
        faster: compile the model first (needs a C++ compiler; same recipe, other rounding).
    """
    sources = texts(data_dir)
    documents = [text for group in sources.values() for text in group]
    tokenizer = make_tokenizer(documents)
    model = make_model(tokenizer)
    order = np.random.default_rng(SEED).permutation(len(documents))
    tokens = tokenize([documents[index] for index in order], tokenizer)
    notes, journal = describe(sources, len(tokens)), Journal()
    print(json.dumps(notes, indent=1), file=sys.stderr, flush=True)
    if faster:
        model.compile()

    def snapshot(step: int) -> bool:
        if step == snapshot_steps and len(journal.losses) == step:
            save(model, tokenizer, folder / "snapshot", notes)
        return False

    context = Context(seed=SEED, device="cpu", folder=folder, meter=Meter())
    steps = [run_stage(model, tokens, number, context, journal, snapshot) for number in range(len(STAGES))]
    save(model, tokenizer, folder, notes | {"compiled": faster, "steps": steps, "loss": journal.curve()})
    return notes


def run_stage(model: PreTrainedModel, tokens: np.ndarray, number: int, context: Context, journal: Journal,
              stop: Callable[[int], bool]) -> int:
    """Train `model` through stage `number` of `STAGES`; returns the steps done."""
    stage = STAGES[number]
    batches = PackedBlocks(tokens, block_size=stage.block_size, batch_size=stage.per_device_train_batch_size,
                           seed=SEED + number)  # fmt: skip
    return train(model, batches, stage, context, label="pretrain", loss_fn=journal, stop=stop).steps


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit status 0, or 2 for a usage error."""
    parser = argparse.ArgumentParser(
        prog="python -m harness.models.recipe",
        description="Pretrain the shipped model tiny (about an hour on 2 cores).",
        epilog="example: python -m harness.models.recipe --data-dir data -o tiny")  # fmt: skip
    parser.add_argument("--data-dir", type=Path, required=True, help="the data pack's folder")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--snapshot-steps", type=int, default=0, help="also write OUTPUT/snapshot after so many steps")
    parser.add_argument("--compile", action="store_true", help="compile the model: about 1.3 times as fast")
    options = parser.parse_args(arguments)
    try:
        pretrain(options.data_dir, options.output, options.snapshot_steps, options.compile)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
