"""The data pack's rows in the shape that lm-eval's own tasks expect, so that their prompts apply unchanged.

lm-eval's YAML files under `tasks/pack/` name `load` as their `custom_dataset`; the folder of the pack comes from
`HARNESS_DATA` (or, within this package, from the task manager's metadata).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness.tasks.pack import Row, pack_rows
from harness.tasks.sources import capitalised

LETTERS = "ABCDE"


def load(*, task: str, data_dir: str | None = None, **_: Any) -> dict[str, Any]:
    """The data set of one task, as lm-eval's `custom_dataset` wants it.

    Args:
        task: a key of `FILES`.
        data_dir: the pack's folder; by default `HARNESS_DATA`.
        _: the other metadata that lm-eval passes along.

    Raises:
        UsageError: the pack, or this file of it, is not there.
    """
    from datasets import Dataset

    folder = data_dir or os.environ.get("HARNESS_DATA")
    file, part, convert = FILES[task]
    rows = pack_rows(file, Path(folder) if folder else None, wanted_by=f"utility task pack_{task}", hub="lm-eval's own")
    chosen = [row for row in rows if part is None or row["part"] == part]
    return {"test": Dataset.from_list(list(_converted(chosen, convert)))}


def _converted(rows: list[Row], convert: Callable[[Row], Row] | None) -> Iterator[Row]:
    if convert is None:  # whole-file tasks
        yield from _pages(rows)
    else:
        yield from map(convert, rows)


def lettered(row: Row) -> Row:
    """allenai/ai2_arc: options under letters."""
    choices = {"text": row["choices"], "label": list(LETTERS[: len(row["choices"])])}
    return {"question": row["question"], "choices": choices, "answerKey": LETTERS[row["answer"]]}


def stemmed(row: Row) -> Row:
    """allenai/openbookqa: as ARC, the question under another name."""
    return {"question_stem": row["question"], **{k: v for k, v in lettered(row).items() if k != "question"}}


def goal(row: Row) -> Row:
    """baber/piqa."""
    return {"goal": row["question"], "sol1": row["choices"][0], "sol2": row["choices"][1], "label": row["answer"]}


def sentence(row: Row) -> Row:
    """allenai/winogrande."""
    return {"sentence": row["question"], "option1": row["choices"][0], "option2": row["choices"][1],
            "answer": str(row["answer"] + 1)}  # fmt: skip


def passage(row: Row) -> Row:
    """aps/super_glue, boolq: lm-eval's prompt adds the question mark that the pack keeps."""
    return {"passage": row["passage"], "question": row["question"].removesuffix("?"), "label": row["answer"]}


def ending(row: Row) -> Row:
    """Rowan/hellaswag after lm-eval's `process_docs`."""
    return {"query": capitalised(row["question"]), "choices": row["choices"], "label": str(row["answer"])}


def subject(row: Row) -> Row:
    """cais/mmlu: the subject in words, for the description that lm-eval puts before each prompt."""
    return {**row, "subject": row["subject"].replace("_", " ")}


def last_word(row: Row) -> Row:
    """EleutherAI/lambada_openai."""
    return {"text": f"{row['context']} {row['continuation']}"}


def _pages(rows: list[Row]) -> Iterator[Row]:
    """EleutherAI/wikitext_document_level: an article a page, begun by its ` = Title = ` line."""
    page: list[str] = []
    for line in (row["text"] for row in rows):
        if re.fullmatch(r" = [^=].*[^=] = ", line) and "".join(page).strip():
            yield {"page": "\n".join(page)}
            page = []
        page.append(line)
    yield {"page": "\n".join(page)}


FILES: dict[str, tuple[str, str | None, Callable[[Row], Row] | None]] = {
    "arc_easy": ("mc/arc_easy_test.jsonl.gz", None, lettered),
    "arc_challenge": ("mc/arc_challenge_test.jsonl.gz", None, lettered),
    "openbookqa": ("mc/openbookqa_test.jsonl.gz", None, stemmed),
    "piqa": ("mc/piqa_validation.jsonl.gz", "eval", goal),
    "winogrande": ("mc/winogrande_validation.jsonl.gz", None, sentence),
    "boolq": ("mc/boolq_validation.jsonl.gz", "eval", passage),
    "hellaswag": ("mc/hellaswag_validation.jsonl.gz", "eval", ending),
    "mmlu": ("mc/mmlu_test_2k.jsonl.gz", None, subject),
    "lambada_openai": ("text/lambada_openai_test.jsonl.gz", None, last_word),
    "wikitext": ("text/wikitext2_test.txt.gz", None, None),
}
"""By task: the pack's file, the part of it that is reported, and the conversion of a row."""
