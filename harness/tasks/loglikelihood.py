"""Log-likelihood of text under a causal language model: batched, right-padded, the same whatever the batch size.

The conventions are lm-evaluation-harness's (trailing spaces of a context belong to the continuation, an empty context
is the BOS or else EOS token, too long contexts lose their left end, rolling windows reuse context), so numbers compare.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

import torch

from harness.errors import Outcome, UsageError
from harness.models.placement import carrier_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from harness.plugins import Released

LOGIT_ELEMENTS = {"cpu": 2**22, "cuda": 2**25}
"""Logits (rows x tokens x vocabulary) a batch may hold, by device: 16 MiB of fp32 stay in a CPU's caches, and are
scored 1.6 times faster than 128 MiB; a GPU wants work."""
MAX_BATCH = 64
DEFAULT_CONTEXT = 2048


class Row(NamedTuple):
    """Token ids of one forward pass; only the last `scored` of them are predicted."""

    ids: list[int]
    scored: int


def prefix_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that stands for "a text begins here": BOS, else EOS.

    Raises:
        UsageError: the tokenizer has neither.
    """
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise UsageError("the tokenizer has neither a BOS nor an EOS token, so a text has no beginning")


def context_size(model: PreTrainedModel) -> int:
    """Longest input, in tokens: the configuration's positions, at most 2048."""
    for name in ("max_position_embeddings", "n_positions", "n_ctx"):
        if isinstance(size := getattr(model.config, name, None), int):
            return min(size, DEFAULT_CONTEXT)
    return DEFAULT_CONTEXT


def pair_row(tokenizer: PreTrainedTokenizerBase, context: str, continuation: str, size: int) -> Row:
    """Tokens of context and continuation; the continuation is what `encode(both)` adds to `encode(context)`."""
    spaces = len(context) - len(context.rstrip())
    if spaces:
        context, continuation = context[:-spaces], context[-spaces:] + continuation
    if context:
        whole, start = tokenizer.encode(context + continuation), len(tokenizer.encode(context))
    else:
        whole, start = [prefix_token(tokenizer), *tokenizer.encode(continuation, add_special_tokens=False)], 1
    scored = len(whole) - start
    if not 0 < scored <= size:
        raise UsageError(f"continuation {continuation!r} has {scored} tokens; the model takes 1 to {size}")
    return Row(whole[-(size + 1) :], scored)


def rolling_rows(tokenizer: PreTrainedTokenizerBase, text: str, size: int) -> list[Row]:
    """Windows of at most `size` inputs that together predict every token of `text` once, the first from BOS/EOS."""
    full = [prefix_token(tokenizer), *tokenizer.encode(text, add_special_tokens=False, verbose=False)]
    rows = []
    for start in range(1, len(full), size):
        end = min(start + size, len(full))
        rows.append(Row(full[max(0, end - size - 1) : end], end - start))
    return rows


def score_rows(model: PreTrainedModel, rows: Sequence[Row], batch_size: int | None = None) -> list[tuple[float, bool]]:
    """Sum of log-probabilities (nats) of each row's scored tokens, and whether all were the argmax.

    Args:
        model: in eval mode; run at its own precision, the softmax in fp32.
        rows: in any order; the result is in the same order.
        batch_size: rows a forward pass; by default as many as keep the logits small.

    Raises:
        Outcome: the model gives NaN or infinite log-probabilities (a diverged attack, for example).
    """
    order = sorted(range(len(rows)), key=lambda i: (-len(rows[i].ids), i))
    results: list[tuple[float, bool]] = [(0.0, True)] * len(rows)
    vocabulary = model.get_output_embeddings().weight.shape[0]
    start = 0
    with torch.inference_mode():
        while start < len(order):
            longest = len(rows[order[start]].ids)
            fitting = max(1, min(MAX_BATCH, logit_elements(model) // (longest * vocabulary)))
            chosen = order[start : start + (batch_size or fitting)]
            for index, result in zip(chosen, _score_batch(model, [rows[i] for i in chosen]), strict=True):
                results[index] = result
            start += len(chosen)
    if broken := sum(not math.isfinite(value) for value, _ in results):
        raise Outcome(f"the model has collapsed: {broken} of {len(rows)} log-likelihoods are NaN or infinite")
    return results


def logit_elements(model: PreTrainedModel) -> int:
    """`LOGIT_ELEMENTS` of the device that the model computes on."""
    carrier = carrier_of(model)
    return LOGIT_ELEMENTS.get((carrier or model).device.type, LOGIT_ELEMENTS["cuda"])


def _score_batch(model: PreTrainedModel, rows: Sequence[Row]) -> list[tuple[float, bool]]:
    longest = max(len(row.ids) for row in rows) - 1
    inputs = torch.zeros(len(rows), longest, dtype=torch.long)
    targets, wanted = torch.zeros_like(inputs), torch.zeros_like(inputs, dtype=torch.bool)
    for i, (ids, scored) in enumerate(rows):
        length = len(ids) - 1
        inputs[i, :length], targets[i, :length] = torch.tensor(ids[:-1]), torch.tensor(ids[1:])
        wanted[i, length - scored : length] = True
    device = model.device
    wanted, gold = wanted.to(device), targets.to(device)[wanted.to(device)]
    # No attention mask: causal attention never looks at the padding on the right, and is faster unmasked.
    logits = model(input_ids=inputs.to(device), use_cache=False).logits
    logits = logits[wanted].float()
    logprobs = -torch.nn.functional.cross_entropy(logits, gold, reduction="none").double()
    greedy = logits.argmax(-1) == gold
    ends = list(accumulate(row.scored for row in rows))
    spans = [slice(end - row.scored, end) for row, end in zip(rows, ends, strict=True)]
    logprobs, greedy = logprobs.cpu(), greedy.cpu()
    return [(float(logprobs[span].sum()), bool(greedy[span].all())) for span in spans]


def continuation_logprobs(
    released: Released, pairs: Sequence[tuple[str, str]], batch_size: int | None = None
) -> list[float]:
    """log p(continuation | context) in nats for each (context, continuation).

    Raises:
        UsageError: a continuation is empty or longer than the model's context.
    """
    size = context_size(released.model)
    rows = [pair_row(released.tokenizer, context, continuation, size) for context, continuation in pairs]
    return [value for value, _ in score_rows(released.model, rows, batch_size)]


def text_logprobs(released: Released, texts: Sequence[str], batch_size: int | None = None) -> list[tuple[float, int]]:
    """(log p(text) in nats, number of tokens) for each text, every token counted from the first."""
    size = context_size(released.model)
    windows = [rolling_rows(released.tokenizer, text, size) for text in texts]
    flat = [row for rows in windows for row in rows]
    values = iter(score_rows(released.model, flat, batch_size))
    return [(sum(next(values)[0] for _ in rows), sum(row.scored for row in rows)) for rows in windows]


def greedy_texts(released: Released, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
    """Greedy continuations of `prompts`, special tokens removed.

    Prompts of equal token count share a batch, so no padding is needed and batching cannot change the text.
    """
    tokenizer, model = released.tokenizer, released.model
    encoded = [tokenizer.encode(p) or [prefix_token(tokenizer)] for p in prompts]
    room = context_size(model) - max_new_tokens
    encoded = [ids[-room:] for ids in encoded]
    texts = [""] * len(prompts)
    end = tokenizer.eos_token_id
    for length in sorted({len(ids) for ids in encoded}):
        group = [i for i, ids in enumerate(encoded) if len(ids) == length]
        for start in range(0, len(group), MAX_BATCH):
            chosen = group[start : start + MAX_BATCH]
            ids = torch.tensor([encoded[i] for i in chosen], device=model.device)
            with torch.inference_mode():
                out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, num_beams=1,
                                     max_new_tokens=max_new_tokens, eos_token_id=end, pad_token_id=end)  # fmt: skip
            for i, row in zip(chosen, out[:, length:].tolist(), strict=True):
                texts[i] = tokenizer.decode(row, skip_special_tokens=True)
    return texts
