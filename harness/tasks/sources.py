"""Where the multiple-choice data sets are: files of the data pack, and the same rows on the hub. Imports no torch.

`from_hub` turns a row of the hub into one of the pack's: question, choices, answer (0-based), and a passage for BoolQ.
Official splits are used where the pack has them; where it has validation only, its `tune` part trains and its `eval`
part is reported, and on the hub the official train and validation splits are.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from harness.tasks.pack import Piece, Row, Source


def lettered(row: Row) -> Row:
    """ARC and OpenBookQA: options under letters or digits."""
    labels, question = row["choices"]["label"], row.get("question", row.get("question_stem"))
    return {"question": question, "choices": row["choices"]["text"], "answer": labels.index(row["answerKey"].strip())}


def solutions(row: Row) -> Row:
    """PIQA."""
    return {"question": row["goal"], "choices": [row["sol1"], row["sol2"]], "answer": row["label"]}


def blanks(row: Row) -> Row:
    """WinoGrande."""
    return {"question": row["sentence"], "choices": [row["option1"], row["option2"]], "answer": int(row["answer"]) - 1}


def yes_no(row: Row) -> Row:
    """BoolQ."""
    kept = {"passage": row["passage"], "question": row["question"]}
    return {**kept, "choices": ["no", "yes"], "answer": int(row["answer"])}


def endings(row: Row) -> Row:
    """HellaSwag, preprocessed as lm-evaluation-harness does."""
    from lm_eval.tasks.hellaswag.utils import preprocess

    text = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
    return {"question": preprocess(text), "choices": [preprocess(text) for text in row["endings"]],
            "answer": int(row["label"])}  # fmt: skip


def capitalised(text: str) -> str:
    """`text` with its last, unfinished sentence begun by a capital letter, as lm-evaluation-harness begins HellaSwag's.

    The pack's HellaSwag text is preprocessed already, but for that letter.
    """
    match = re.search(r"(?<=[.!?] )[a-z][^.!?]*$", text)
    return text[: match.start()] + match[0].capitalize() if match else text


def _source(
    name: str, hub: str, config: str | None, convert: Callable[[Row], Row], train: Piece, test: Piece
) -> Source:
    return Source(name=name, hub=hub, hub_config=config, train=train, test=test, from_hub=convert)


def _piece(name: str, hub_split: str, part: str | None = None) -> Piece:
    return Piece(file=f"mc/{name}.jsonl.gz", hub_split=hub_split, part=part)


def _parted(name: str, hub: str, convert: Callable[[Row], Row]) -> Source:
    """Only the validation split is in the pack, cut in parts."""
    file = f"{name}_validation"
    return _source(name, hub, None, convert, _piece(file, "train", "tune"), _piece(file, "validation", "eval"))


ARC_EASY = _source("arc_easy", "allenai/ai2_arc", "ARC-Easy", lettered,
                   _piece("arc_easy_train", "train"), _piece("arc_easy_test", "test"))  # fmt: skip
ARC_CHALLENGE = _source("arc_challenge", "allenai/ai2_arc", "ARC-Challenge", lettered,
                        _piece("arc_challenge_train", "train"), _piece("arc_challenge_test", "test"))  # fmt: skip
OPENBOOKQA = _source("openbookqa", "allenai/openbookqa", "main", lettered,
                     _piece("openbookqa_train", "train"), _piece("openbookqa_test", "test"))  # fmt: skip
WINOGRANDE = _source("winogrande", "allenai/winogrande", "winogrande_l", blanks,
                     _piece("winogrande_train", "train"), _piece("winogrande_validation", "validation"))  # fmt: skip
PIQA = _parted("piqa", "baber/piqa", solutions)
BOOLQ = _parted("boolq", "google/boolq", yes_no)
HELLASWAG = _parted("hellaswag", "Rowan/hellaswag", endings)
