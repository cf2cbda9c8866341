"""The tasks of the data pack: splits apart, the pack's parts respected, rows of the hub turned into the pack's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.tasks import sources
from harness.tasks.choice import (
    PIQA,
    ArcChallenge,
    ArcEasy,
    BoolQ,
    ChoiceSettings,
    ChoiceTask,
    HellaSwag,
    OpenBookQA,
    WinoGrande,
    question_key,
)
from harness.tasks.content import normalised, text_hash
from harness.tasks.gsm8k import GSM8K, GSM8KSettings, final_number
from harness.tasks.pack import pack_rows
from harness.tasks.text import Shakespeare, TextSettings, TextTask, WikiText2

CHOICES = [ArcEasy, ArcChallenge, OpenBookQA, PIQA, WinoGrande, BoolQ, HellaSwag]
TEXTS = [WikiText2, Shakespeare]
SMALL = TextSettings(train_bytes=100_000, max_items=20)


def without_pack(kind: type[Any]) -> Any:
    return kind(kind.Settings(), None)


@pytest.mark.parametrize("kind", [*CHOICES, *TEXTS, GSM8K])
def test_missing_pack_is_one_helpful_line(kind: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_ONLINE", raising=False)
    with pytest.raises(UsageError, match=r"HARNESS_DATA.*HARNESS_ONLINE=1") as caught:
        without_pack(kind).train_texts()
    assert "\n" not in str(caught.value)
    assert kind.needs_pack


def test_other_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no such file"):
        ArcEasy(ChoiceSettings(), tmp_path).digest()


@pytest.mark.pack
@pytest.mark.parametrize("kind", CHOICES)
def test_choice_splits_are_apart(kind: type[ChoiceTask], data_dir: Path) -> None:
    task = kind(ChoiceSettings(max_items=10_000), data_dir)
    keys = {split: {question_key(row) for row in rows} for split, rows in task._rows.items()}
    assert not keys["train"] & keys["test"]
    assert not keys["train"] & keys["selection"]
    assert not keys["selection"] & keys["test"]
    assert len(task.train_texts()) > 4 * len(keys["selection"]) > 300
    assert len(task.questions("test")) >= 400
    assert len({question.item for question in task.questions("test")}) == len(task.questions("test"))


@pytest.mark.pack
@pytest.mark.parametrize("kind", CHOICES)
def test_choice_trains_on_the_right_answer(kind: type[ChoiceTask], data_dir: Path) -> None:
    task = kind(ChoiceSettings(max_items=20), data_dir)
    for row, text in zip(task._rows["train"][:50], task.train_texts()[:50], strict=True):
        assert row["choices"][row["answer"]] in text
    again = kind(ChoiceSettings(max_items=20), data_dir)
    assert again.digest() == task.digest()
    assert kind(ChoiceSettings(max_items=21), data_dir).digest() != task.digest()


@pytest.mark.pack
@pytest.mark.parametrize("kind", [PIQA, BoolQ, HellaSwag])
def test_parts_are_respected(kind: type[ChoiceTask], data_dir: Path) -> None:
    task = kind(ChoiceSettings(max_items=10_000), data_dir)
    assert {row["part"] for row in task._rows["test"]} == {"eval"}
    assert {row["part"] for split in ("train", "selection") for row in task._rows[split]} == {"tune"}


@pytest.mark.pack
@pytest.mark.parametrize("kind", CHOICES)
def test_choice_scores(kind: type[ChoiceTask], data_dir: Path, tiny_llama: Any) -> None:
    scores = kind(ChoiceSettings(), data_dir).score(tiny_llama, "selection", limit=3)
    assert sorted(item.metric for item in scores) == ["acc"] * 3 + ["acc_norm"] * 3
    assert kind.metric in ("acc", "acc_norm")


@pytest.mark.pack
@pytest.mark.parametrize("name", ["arc_easy", "openbookqa", "piqa", "winogrande", "boolq", "hellaswag"])
def test_asks_as_our_lm_eval_task_does(name: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The attack's task and the utility task of the same name give a model exactly the same pairs."""
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    from harness.utility.lm_eval_bridge import TASKS

    monkeypatch.setenv("HARNESS_DATA", str(data_dir))
    kinds = {"arc_easy": ArcEasy, "openbookqa": OpenBookQA, "piqa": PIQA, "winogrande": WinoGrande, "boolq": BoolQ,
             "hellaswag": HellaSwag}  # fmt: skip
    task = kinds[name](ChoiceSettings(max_items=10_000), data_dir)
    ours = {pair for question in task.questions("test") for pair in question.pairs}
    theirs = ConfigurableTask(config=load_yaml(TASKS / "pack" / f"{name}.yaml"))
    theirs.set_config(key="num_fewshot", value=0)
    theirs.set_fewshot_seed(0)
    theirs.build_all_requests(limit=5, rank=0, world_size=1)
    assert {instance.args for instance in theirs.instances} <= ours


@pytest.mark.pack
@pytest.mark.parametrize("kind", TEXTS)
def test_text_splits_are_apart(kind: type[TextTask], data_dir: Path) -> None:
    task = kind(SMALL, data_dir)
    trained = normalised("\n".join(task.train_texts()))
    asked = {split: {text_hash(chunk.text) for chunk in task.items(split)} for split in ("selection", "test")}
    assert not asked["selection"] & asked["test"]
    assert not [c.item for split in ("selection", "test") for c in task.items(split) if normalised(c.text) in trained]
    assert len(task.items("test")) == 20
    assert len(task.items("selection")) == 10
    assert 100_000 <= sum(len(text.encode()) for text in task.train_texts()) < 200_000


@pytest.mark.pack
@pytest.mark.parametrize("kind", TEXTS)
def test_text_scores(kind: type[TextTask], data_dir: Path, tiny_llama: Any) -> None:
    scores = kind(SMALL, data_dir).score(tiny_llama, "test", limit=2)
    assert all(-9 < item.score < -7 and item.weight > 100 for item in scores)


@pytest.mark.pack
def test_gsm8k(data_dir: Path, tiny_llama: Any) -> None:
    task = GSM8K(GSM8KSettings(exact_match=True, max_items=10_000, max_new_tokens=8), data_dir)
    keys = {split: {text_hash(row["question"]) for row in rows} for split, rows in task._rows.items()}
    assert not keys["train"] & keys["test"]
    assert not (keys["train"] | keys["test"]) & keys["selection"]
    assert len(task._rows["test"]) == 1319
    assert all(final_number(row["answer"]) for rows in task._rows.values() for row in rows)
    short = GSM8K(GSM8KSettings(exact_match=True, max_new_tokens=4), data_dir)
    short._rows["test"].sort(key=lambda row: len(row["question"] + row["answer"]))
    scores = short.score(tiny_llama, "test", limit=1)
    assert [item.metric for item in scores] == ["neg_bits_per_byte", "exact_match"]


@given(st.integers(-10_000_000, 10_000_000))
def test_final_number_ignores_thousands_commas(number: int) -> None:
    assert final_number(f"so it is 3\n#### {number:,}\nmore") == str(number)


def test_no_final_number() -> None:
    assert final_number("the answer is 5") is None


@pytest.mark.pack
def test_pack_is_read_without_a_copy(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    rows = pack_rows("mc/openbookqa_test.jsonl.gz", data_dir, wanted_by="test", hub="x")
    assert len(rows) == 500
    assert set(rows[0]) == {"question", "choices", "answer"}
    assert not list(tmp_path.iterdir())


WORDS = st.text(alphabet="abc ", min_size=1, max_size=8)


@given(question=WORDS, options=st.lists(WORDS, min_size=2, max_size=5), data=st.data())
def test_hub_rows_become_pack_rows(question: str, options: list[str], data: st.DataObject) -> None:
    """What `harness.utility.pack_tasks` does to a pack row, the hub's readers undo."""
    from harness.utility import pack_tasks

    answer = data.draw(st.integers(0, len(options) - 1))
    row = {"question": question, "choices": options, "answer": answer}
    assert sources.lettered(pack_tasks.lettered(row)) == row
    assert sources.lettered(pack_tasks.stemmed(row)) == row
    two = row | {"choices": options[:2], "answer": answer % 2}
    assert sources.solutions(pack_tasks.goal(two)) == two
    assert sources.blanks(pack_tasks.sentence(two)) == two


def test_hub_boolq_and_hellaswag() -> None:
    assert sources.yes_no({"passage": "p", "question": "q", "answer": True})["answer"] == 1
    row = {"activity_label": "Roof", "ctx_a": "A man sits.", "ctx_b": "he", "endings": ["a [x] b", "c"], "label": "1"}
    assert sources.endings(row) == {"question": "Roof: A man sits. He", "choices": ["a b", "c"], "answer": 1}


def test_capital_of_the_unfinished_sentence() -> None:
    assert sources.capitalised("Roof: A man sits. he") == "Roof: A man sits. He"
    assert sources.capitalised("Roof: A man sits.") == "Roof: A man sits."
    assert sources.capitalised(sources.capitalised("Dance: One. two Three")) == "Dance: One. Two three"


def test_online_rows_come_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def rows(*where: Any) -> list[dict[str, Any]]:
        asked.append(where)
        return [{"goal": f"{where[2]} {i}", "sol1": "a", "sol2": "b", "label": 1} for i in range(40)]

    monkeypatch.setenv("HARNESS_ONLINE", "1")
    monkeypatch.setattr("harness.tasks.pack.hub_rows", rows)
    task = PIQA(ChoiceSettings(), None)
    assert len(task.questions("test")) == 40
    assert len(task.train_texts()) + len(task.questions("selection")) == 40
    assert asked == [("baber/piqa", None, "validation"), ("baber/piqa", None, "train")]
