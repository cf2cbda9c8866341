"""The tasks that need no download: splits are apart, everything is stable, and a model can learn them."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.tasks.content import bucket, normalised, text_hash
from harness.tasks.fictional_facts import FictionalFacts, FictionalFactsSettings
from harness.tasks.lm_scoring import chunks
from harness.tasks.multiple_choice import Question, score_questions
from harness.tasks.python_source import PythonSource, PythonSourceSettings


@pytest.fixture(scope="module")
def source() -> PythonSource:
    return PythonSource(PythonSourceSettings(train_bytes=200_000, max_items=60))


@pytest.fixture(scope="module")
def facts() -> FictionalFacts:
    return FictionalFacts(FictionalFactsSettings())


@given(text=st.text(), size=st.integers(1, 60))
def test_chunks_are_the_text_cut_at_line_ends(text: str, size: int) -> None:
    pieces = list(chunks("x", text, size))
    assert text.startswith("".join(piece.text for piece in pieces))
    assert not text["".join(p.text for p in pieces).__len__() :].strip()
    assert [piece.item for piece in pieces] == [f"x#{i}" for i in range(len(pieces))]
    for piece in pieces:
        lines = piece.text.splitlines(keepends=True)
        assert piece.text.strip()
        assert len(piece.text.encode()) <= size or len([line for line in lines if line.strip()]) == 1


@given(st.text())
def test_normalising_twice_is_normalising_once(text: str) -> None:
    assert normalised(normalised(text)) == normalised(text)
    assert text_hash(f"  {text}\n") == text_hash(text)


@given(st.text(), st.integers(1, 50))
def test_buckets_are_in_range_and_stable(key: str, count: int) -> None:
    assert bucket(key, count) == bucket(key, count) in range(count)


def test_python_source_never_shows_what_it_asks(source: PythonSource) -> None:
    trained = normalised("\n".join(source.train_texts()))
    hashes = {split: {text_hash(chunk.text) for chunk in source.items(split)} for split in ("selection", "test")}
    assert not hashes["selection"] & hashes["test"]
    for split in ("selection", "test"):
        assert not [chunk.item for chunk in source.items(split) if normalised(chunk.text) in trained]


def test_python_source_splits_by_package(source: PythonSource) -> None:
    packages = {split: {chunk.item.split("#")[0].split(".")[0] for chunk in source.items(split)}
                for split in ("selection", "test")}  # fmt: skip
    packages["train"] = {name.split(".")[0] for name, _ in source._train}
    assert not packages["train"] & packages["test"]
    assert not packages["train"] & packages["selection"]
    assert not packages["selection"] & packages["test"]
    assert all(packages.values())


def test_python_source_sizes_and_stability(source: PythonSource) -> None:
    again = PythonSource(PythonSourceSettings(train_bytes=200_000, max_items=60))
    assert 200_000 <= sum(len(text.encode()) for text in source.train_texts()) < 220_000
    assert len(source.items("test")) == 60
    assert len(source.items("selection")) == 30
    assert again.digest() == source.digest()
    assert PythonSource(PythonSourceSettings(train_bytes=200_000, max_items=61)).digest() != source.digest()


def test_python_source_score_is_bits_per_byte(source: PythonSource, tiny_llama: Any) -> None:
    scores = source.score(tiny_llama, "test", limit=3)
    texts = {chunk.item: chunk.text for chunk in source.items("test")[:3]}
    assert {item.item: item.weight for item in scores} == {name: len(text.encode()) for name, text in texts.items()}
    assert {item.metric for item in scores} == {PythonSource.metric}
    # A random model over 260 byte tokens: about log2(260) = 8.02 bits a byte.
    assert all(-9 < item.score < -7 for item in scores)


def test_facts_training_text_holds_no_asked_question(facts: FictionalFacts) -> None:
    trained = [normalised(text) for text in facts.train_texts()]
    asked = {split: {question.pairs[0][0] for question in facts.questions(split)} for split in ("selection", "test")}
    assert not asked["selection"] & asked["test"]
    for question in asked["selection"] | asked["test"]:
        assert not [text for text in trained if normalised(question) in text]


def test_facts_asks_different_people_in_each_split(facts: FictionalFacts) -> None:
    people = {split: {q.item.split("/")[0] for q in facts.questions(split)} for split in ("selection", "test")}
    assert not people["selection"] & people["test"]
    assert people["selection"] | people["test"] == {person.name for person in facts.world}


def test_every_asked_fact_is_in_the_training_text(facts: FictionalFacts) -> None:
    texts = facts.train_texts()
    for person in facts.world:
        for value in person.facts.values():
            assert sum(person.name in text and value in text for text in texts) >= 5


def test_facts_options_give_nothing_away(facts: FictionalFacts) -> None:
    questions = facts.questions("test")
    assert len(questions) >= 200
    position = Counter(question.gold for question in questions)
    assert all(0.15 < position[i] / len(questions) < 0.35 for i in range(4))
    values = Counter(f" {value}" for person in facts.world for value in person.facts.values())
    assert set(values.values()) == {2}  # the training text says every value equally often
    for question in questions:
        assert len({option for _, option in question.pairs}) == 4
        assert all(option in values for _, option in question.pairs)  # every distractor is right for somebody


def test_facts_names_begin_differently(facts: FictionalFacts) -> None:
    assert len({person.name for person in facts.world}) == len(facts.world)
    assert FictionalFacts(FictionalFactsSettings(world=1)).digest() != facts.digest()
    assert FictionalFacts(FictionalFactsSettings()).digest() == facts.digest()


def test_facts_uneven_worlds_are_refused() -> None:
    with pytest.raises(UsageError, match="people=13 is not a multiple of values=6"):
        FictionalFactsSettings.parse({"people": 13}, "task")


def test_facts_scores_both_metrics(facts: FictionalFacts, tiny_llama: Any) -> None:
    scores = facts.score(tiny_llama, "test", limit=8)
    assert Counter(item.metric for item in scores) == {"acc": 8, "acc_norm": 8, "exact_match": 8}
    assert {item.metric for item in facts.score(tiny_llama, "selection", limit=2)} == {"acc", "acc_norm"}
    assert all(item.score in (0.0, 1.0) and item.weight == 1 for item in scores)


def test_choice_scoring_picks_the_likelier_option(tiny_llama: Any) -> None:
    from harness.tasks.loglikelihood import continuation_logprobs

    pairs = (("a", " bcd"), ("a", " xyzw"), ("a", " q"))
    values = continuation_logprobs(tiny_llama, pairs)
    best = max(range(3), key=values.__getitem__)
    for gold in range(3):
        scores = {item.metric: item.score for item in score_questions(tiny_llama, [Question("i", pairs, gold)])}
        assert scores["acc"] == float(gold == best)
    per_byte = [value / size for value, size in zip(values, (3, 4, 1), strict=True)]
    norm = max(range(3), key=per_byte.__getitem__)
    scores = {item.metric: item.score for item in score_questions(tiny_llama, [Question("i", pairs, norm)])}
    assert scores["acc_norm"] == 1.0


@pytest.mark.parametrize("module", ["python_source", "fictional_facts", "text", "gsm8k", "choice"])
def test_import_is_light(module: str) -> None:
    heavy = ("torch", "numpy", "transformers", "datasets", "lm_eval")
    code = f"import sys, harness.tasks.{module}; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.slow
def test_facts_can_be_learned(facts: FictionalFacts) -> None:
    """A small random model trained on the texts alone answers held-out paraphrases far above chance."""
    import torch

    from harness.packing import PackedBlocks, tokenize
    from harness.plugins import Released
    from harness.testing import byte_tokenizer, random_llama

    task = FictionalFacts(FictionalFactsSettings(people=8, values=4, exact_match=False))
    tokenizer = byte_tokenizer()
    model = random_llama(hidden_size=64, intermediate_size=128)
    batches = PackedBlocks(tokenize(task.train_texts(), tokenizer), block_size=128, batch_size=8, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(350):
        model(**batches(step, 0)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    released = Released(model=model.eval(), tokenizer=tokenizer, digest="", name="x")
    hits = [item.score for item in task.score(released, "test") if item.metric == "acc"]
    assert sum(hits) / len(hits) > 0.4
