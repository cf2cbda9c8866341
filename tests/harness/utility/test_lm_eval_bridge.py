"""Utility is lm-eval's own: the same per-item results as its command line, and its own prompts on the pack's rows."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.errors import UsageError
from harness.utility import UtilityScores, UtilitySpec, evaluate_utility
from harness.utility.lm_eval_bridge import TASKS, run_tasks, task_utility

PACK = ["arc_easy", "arc_challenge", "openbookqa", "piqa", "winogrande", "boolq", "hellaswag", "mmlu", "lambada_openai",
        "wikitext"]  # fmt: skip
SMALL = UtilitySpec(limit=6, perplexity_tokens=600, perplexity_piece_bytes=200)


@pytest.fixture(scope="module")
def scores() -> UtilityScores:
    from harness.plugins import Released
    from harness.testing import byte_tokenizer, random_llama

    released = Released(model=random_llama(), tokenizer=byte_tokenizer(), digest="0" * 64, name="x")
    return evaluate_utility(released, SMALL, None)


def test_scores_follow_from_items(scores: UtilityScores) -> None:
    task = scores.tasks["minimal_pairs"]
    assert task.n == len(task.items) == 6
    assert task.score == pytest.approx(sum(item.score for item in task.items) / 6)
    assert task.chance == 0.5
    assert {item.metric for item in task.items} == {"utility/minimal_pairs"}
    nats = sum(item.score * item.weight for item in scores.perplexity.items)
    tokens = sum(item.weight for item in scores.perplexity.items)
    assert scores.perplexity.per_token == pytest.approx(math.exp(-nats / tokens))
    assert scores.perplexity.tokens == tokens >= 600
    assert len({(item.metric, item.item) for item in scores.items}) == len(scores.items)


def test_random_bytes_model_has_perplexity_of_its_vocabulary(scores: UtilityScores) -> None:
    assert scores.perplexity.per_token == pytest.approx(260, rel=0.15)
    assert scores.perplexity.bits_per_byte == pytest.approx(math.log2(scores.perplexity.per_token), rel=0.01)


def test_scores_survive_json(scores: UtilityScores) -> None:
    assert UtilityScores.model_validate_json(scores.model_dump_json()) == scores


def test_nothing_global_is_touched(tiny_llama: Any) -> None:
    torch.manual_seed(7)
    state, vocabulary = torch.get_rng_state(), len(tiny_llama.tokenizer)
    before = {name: tensor.clone() for name, tensor in tiny_llama.model.state_dict().items()}
    tiny_llama.tokenizer.pad_token = None
    run_tasks(tiny_llama, SMALL, None)
    assert torch.equal(torch.get_rng_state(), state)
    assert tiny_llama.tokenizer.pad_token is None
    assert len(tiny_llama.tokenizer) == vocabulary
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny_llama.model.state_dict().items())


def test_ours_equals_lm_evals_likelihood(tiny_llama: Any) -> None:
    """The tasks' own scorer and lm-eval's agree on the same pairs."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from harness.tasks.loglikelihood import continuation_logprobs, text_logprobs

    pairs = [("Question: who?\nAnswer:", " Bob"), ("", "Nobody"), ("x " * 200, "and y"), ("a ", "b")]
    lm = HFLM(pretrained=tiny_llama.model, tokenizer=tiny_llama.tokenizer, batch_size=2, backend="causal")
    requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    theirs = [value for value, _ in lm.loglikelihood(requests)]
    assert continuation_logprobs(tiny_llama, pairs) == pytest.approx(theirs, abs=1e-3)
    texts = ["short", "long text " * 60]
    rolling = lm.loglikelihood_rolling([Instance("rolling", {}, (text,), i) for i, text in enumerate(texts)])
    assert [value for value, _ in text_logprobs(tiny_llama, texts)] == pytest.approx(rolling, abs=1e-3)


def test_unknown_task_is_one_line(tiny_llama: Any) -> None:
    with pytest.raises(UsageError, match="Did you mean 'minimal_pairs'") as caught:
        run_tasks(tiny_llama, UtilitySpec(tasks=("minimal_pears",)), None)
    assert "\n" not in str(caught.value)


def test_missing_pack_says_how_to_get_it(tiny_llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    with pytest.raises(UsageError, match="HARNESS_DATA"):
        run_tasks(tiny_llama, UtilitySpec(tasks=("pack_arc_easy",)), None)


def test_no_numeric_metric_is_refused() -> None:
    row = {"filter": "none", "metrics": ["text"], "text": "abc", "doc_id": 0, "arguments": [()]}
    with pytest.raises(UsageError, match="no metric that is a number"):
        task_utility("t", [row])
    with pytest.raises(UsageError, match="no items"):
        task_utility("t", [])


@pytest.mark.pack
@pytest.mark.slow
@pytest.mark.parametrize("name", PACK)
def test_pack_tasks_run(name: str, tiny_llama: Any, data_dir: Path) -> None:
    limit = 1 if name == "wikitext" else 4
    task = run_tasks(tiny_llama, UtilitySpec(tasks=(f"pack_{name}",), limit=limit), data_dir)[f"pack_{name}"]
    assert task.n == limit
    options = {"piqa": 0.5, "winogrande": 0.5, "boolq": 0.5, "lambada_openai": None, "wikitext": None}
    assert task.chance == options.get(name, 0.25)
    assert task.metric == {"winogrande": "acc", "boolq": "acc", "mmlu": "acc", "lambada_openai": "acc",
                           "wikitext": "bits_per_byte"}.get(name, "acc_norm")  # fmt: skip


@pytest.mark.pack
@pytest.mark.parametrize("name", [name for name in PACK if name not in ("mmlu", "hellaswag")])
def test_prompts_are_lm_evals_own(name: str, monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> None:
    """lm-eval's own task of that name, given the same rows, asks exactly the same."""
    monkeypatch.setenv("HARNESS_DATA", str(data_dir))
    ours, theirs = _requests(TASKS / "pack" / f"{name}.yaml", name), _requests(_their_file(name), name)
    assert ours == theirs
    assert len(ours) >= 6


@pytest.mark.pack
def test_mmlu_prompt_is_lm_evals_own(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(data_dir))
    keep = _only_subject("anatomy")
    ours = _requests(TASKS / "pack" / "mmlu.yaml", "mmlu", keep)
    assert ours == _requests(_their_file("mmlu"), "mmlu", keep)
    assert len(ours) == 35 * 4


def _their_file(name: str) -> Path:
    import lm_eval

    folder = {"arc_easy": "arc", "arc_challenge": "arc", "winogrande": "winogrande/default",
              "mmlu": "mmlu/default/mmlu_anatomy", "boolq": "super_glue/boolq/default",
              "lambada_openai": "lambada"}  # fmt: skip
    place = folder.get(name, name)
    root = Path(lm_eval.__file__).parent / "tasks"
    return root / (f"{place}.yaml" if (root / f"{place}.yaml").exists() else f"{place}/{name}.yaml")


def _only_subject(subject: str) -> Any:
    return lambda row: row["subject"] == subject


def _requests(file: Path, name: str, keep: Any = None) -> list[tuple[str, ...]]:
    """Arguments of the first requests that a task file makes of the pack's rows."""
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    from harness.utility.pack_tasks import load

    rows = load(task=name)["test"]
    chosen = rows.filter(keep) if keep else rows.select(range(6))
    config = {key: value for key, value in load_yaml(file).items()
              if key not in ("dataset_path", "dataset_name", "training_split", "validation_split", "fewshot_split",
                             "fewshot_config", "dataset_kwargs", "tag", "task_alias", "include")}  # fmt: skip
    task = ConfigurableTask(config={**config, "custom_dataset": lambda **_: {"test": chosen}, "test_split": "test"})
    task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(0)
    task.build_all_requests(rank=0, world_size=1)
    return [instance.args for instance in task.instances]


@pytest.fixture
def exported(tiny_llama: Any, tmp_path: Path) -> Any:
    """A random tiny Llama as a folder that any program can load."""
    folder = tmp_path / "model"
    tiny_llama.model.save_pretrained(folder)
    tiny_llama.tokenizer.save_pretrained(folder)
    return dataclasses.replace(tiny_llama, folder=folder)


@pytest.mark.pack
@pytest.mark.slow
@pytest.mark.parametrize("name", ["minimal_pairs", "pack_arc_easy", "pack_winogrande"])
def test_same_items_as_lm_evals_command(name: str, exported: Any, tmp_path: Path, data_dir: Path) -> None:
    spec = UtilitySpec(tasks=(name,), limit=20, batch_size=8)
    ours = run_tasks(exported, spec, data_dir)[name]
    environment = os.environ | {"HARNESS_DATA": str(data_dir), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1",
                                "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # fmt: skip
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--model_args",
               f"pretrained={exported.folder},dtype=float32", "--tasks", name, "--include_path", str(TASKS), "--limit",
               "20", "--batch_size", "8", "--device", "cpu", "--log_samples", "--output_path",
               str(tmp_path / "out")]  # fmt: skip
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    (file,) = (tmp_path / "out").rglob(f"samples_{name}_*.jsonl")
    theirs = {str(row["doc_id"]): row[ours.metric] for row in map(json.loads, file.read_text().splitlines())}
    assert {item.item: item.score for item in ours.items} == theirs
    assert len(theirs) == 20
