"""The lock from end to end on a random Llama: it learns, is deterministic, and is one model however it is loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from defenses.dlr import DLRLock, DLRSettings
from defenses.dlr.distill import Patience, Students
from defenses.dlr.modeling_dlr import DLRNet
from harness.errors import Outcome
from harness.meters.meter import Meter
from harness.models.digest import weights_digest
from harness.models.families import find_mlps
from harness.models.load import load_model
from harness.models.save import save_released
from harness.plugins import LockContext, Released
from harness.testing import documents

QUICK = {"depth": 4, "module_steps": 20, "polish_steps": 20, "generated_tokens": 512, "block_size": 32,
         "self_generated": 0.1, "check_every": 10}  # fmt: skip


@pytest.fixture
def base() -> Released:
    """A random Llama whose MLPs matter."""
    from harness.testing import byte_tokenizer, random_llama

    model = random_llama()
    with torch.no_grad():
        for site in find_mlps(model):
            for parameter in site.module.parameters():
                parameter.mul_(8)
    return Released(model=model, tokenizer=byte_tokenizer(), digest=weights_digest(model), name="random_llama")


@pytest.fixture
def lock(tmp_path: Path) -> Callable[..., Any]:
    """Locks a base with settings; returns `Locked` and the meter."""

    def run(base: Released, seed: int = 0, **changes: Any) -> Any:
        meter = Meter()
        context = LockContext(seed=seed, device="cpu", folder=tmp_path, meter=meter, corpus=documents)
        with meter.stage("lock"):
            locked = DLRLock(DLRSettings(**(QUICK | changes))).lock(base, context)
        return locked, meter

    return run


@pytest.mark.parametrize("init", ["random", "greedy", "partition"])
def test_distillation_lowers_the_heldout_errors(base: Released, lock: Callable[..., Any], init: str) -> None:
    locked, meter = lock(base, init=init, norm="none" if init == "partition" else "rms", cascade_steps=10)
    report = json.loads(json.dumps(locked.report, allow_nan=False))
    module = report["stages"]["module"]["heldout"]
    assert min(error for _, error in module) < module[0][1]
    polish = report["stages"]["polish"]["heldout"]
    assert report["heldout"]["kl"] == pytest.approx(min(error for _, error in polish))
    assert report["heldout"]["kl"] < polish[0][1]
    assert report["net_parameters"] == pytest.approx(report["replaced_parameters"], rel=0.02)
    assert list(report["layer_errors"]) == ["model.layers.0.mlp", "model.layers.1.mlp"]
    assert meter.bills["lock"].steps == 50
    assert meter.bills["lock"].flops > 0


def test_only_the_nets_change(base: Released, lock: Callable[..., Any]) -> None:
    before = {name: value.clone() for name, value in base.model.state_dict().items() if "mlp" not in name}
    locked, _ = lock(base)
    after = locked.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(isinstance(site.module, DLRNet) for site in find_mlps(locked.model))
    assert all(parameter.requires_grad for parameter in locked.model.parameters())
    assert not locked.model.training


def test_divergence_is_an_outcome() -> None:
    students = Students([torch.nn.Linear(2, 2)])
    patience = Patience(students, lambda: float("nan"), DLRSettings(patience=2))
    with pytest.raises(Outcome, match="the nets diverge"):
        patience.restore(1)


def test_patience_keeps_the_best_weights() -> None:
    students, errors = Students([torch.nn.Linear(2, 2)]), iter([3.0, 1.0, 2.0, float("nan")])
    patience = Patience(students, lambda: next(errors), DLRSettings(patience=2, check_every=1))
    for step in (1, 2, 3):
        with torch.no_grad():
            students.nets[0].weight.fill_(step)
        assert patience(step) == (step == 3)
    patience.restore(3)
    assert float(students.nets[0].weight[0, 0]) == 1.0


def test_patience_goes_on_while_the_error_falls_though_it_is_above_the_start() -> None:
    errors = iter([1.0, 4.0, 3.0, 2.5, 2.0, 2.1])
    patience = Patience(Students([torch.nn.Linear(2, 2)]), lambda: next(errors), DLRSettings(patience=2, check_every=1))
    assert not any(patience(step) for step in range(1, 6))


def test_patience_ends_a_stage_that_does_not_improve(base: Released, lock: Callable[..., Any]) -> None:
    locked, _ = lock(base, module_steps=40, module_learning_rate=1e-12, polish_steps=0, check_every=5, patience=2)
    stage = locked.report["stages"]["module"]
    assert stage["steps"] < 40
    assert locked.report["stages"]["polish"] == {"steps": 0, "heldout": []}


def export(base: Released, locked: Any, folder: Path, **settings: Any) -> str:
    defense = DLRLock(DLRSettings(**(QUICK | settings)))
    return save_released(locked.model, base.tokenizer, folder, dtype="float32", base_name=base.name,
                         base_digest=base.digest, defense=defense,
                         lock={"defense": "dlr", "settings": defense.settings.model_dump(mode="json")})  # fmt: skip


def remote(code: str, *arguments: str) -> str:
    """Run code in a fresh process that cannot see our packages, as a stranger would."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    hide = "import sys; sys.meta_path.insert(0, type('Hide', (), {'find_spec': staticmethod(lambda name, *a: " \
           "(_ for _ in ()).throw(ImportError(name)) if name.split('.')[0] in ('harness', 'defenses') else None)})())\n"
    done = subprocess.run([sys.executable, "-c", hide + code, *arguments], env=environment, cwd="/", text=True,
                          capture_output=True, timeout=300, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


REMOTE = """
import json, sys, torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
folder, ids = sys.argv[1], torch.arange(20).view(2, 10)
try:
    AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
    refused = ""
except ValueError as error:
    refused = str(error)
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
AutoConfig.from_pretrained(folder, trust_remote_code=True)
AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
words = [model.generate(ids, max_new_tokens=8, do_sample=False, use_cache=cache).tolist() for cache in (True, False)]
print("\\n" + json.dumps({"refused": refused, "logits": model(ids).logits.tolist(), "words": words}))
"""


@pytest.mark.slow
def test_loads_the_same_with_and_without_our_packages(base: Released, lock: Callable[..., Any], tmp_path: Path) -> None:
    locked, _ = lock(base)
    folder, ids = tmp_path / "export", torch.arange(20).view(2, 10)
    digest = export(base, locked, folder)
    ours = load_model(str(folder))
    logits = locked.model(ids).logits
    assert ours.digest == digest == weights_digest(locked.model)
    assert torch.equal(ours.model(ids).logits, logits)
    theirs = json.loads(remote(REMOTE, str(folder)).splitlines()[-1])
    assert "trust_remote_code" in theirs["refused"]
    assert torch.equal(torch.tensor(theirs["logits"]), logits)
    assert theirs["words"][0] == theirs["words"][1]
    assert theirs["words"][0] == ours.model.generate(ids, max_new_tokens=8, do_sample=False).tolist()


def test_card_says_what_it_is(base: Released, lock: Callable[..., Any], tmp_path: Path) -> None:
    locked, _ = lock(base, module_steps=0, polish_steps=0, init="partition", norm="none")
    export(base, locked, tmp_path / "export", init="partition", norm="none")
    card = (tmp_path / "export" / "README.md").read_text()
    for words in ("random_llama", base.digest, "reconstruction", "2605.10777", '"depth": 4', "Known breaks",
                  "perplexity", "initialised by `partition`"):  # fmt: skip
        assert words in card


@pytest.mark.slow
def test_lm_eval_command_line_loads_it(base: Released, lock: Callable[..., Any], tmp_path: Path) -> None:
    locked, _ = lock(base, module_steps=0, polish_steps=0)
    export(base, locked, tmp_path / "export")
    (tmp_path / "data.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents("heldout")))
    (tmp_path / "words.yaml").write_text(
        "task: words\ndataset_path: json\ndataset_kwargs: {data_files: {test: " + str(tmp_path / "data.jsonl") + "}}\n"
        "test_split: test\noutput_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: '{{text}}'\n"
        "metric_list: [{metric: bits_per_byte}]\n")  # fmt: skip
    code = "import sys; from lm_eval.__main__ import cli_evaluate; sys.argv[0] = 'lm-eval'; cli_evaluate()"
    arguments = f"pretrained={tmp_path / 'export'},trust_remote_code=True"
    out = remote(code, "run", "--model", "hf", "--model_args", arguments,
                 "--tasks", "words", "--include_path", str(tmp_path), "--device", "cpu")  # fmt: skip
    assert "bits_per_byte" in out
