"""Two processes train as one: the same trajectory, the same bill of operations, and one record."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from harness import probes
from harness.records.record import Record
from harness.testing import byte_tokenizer, random_llama

DOCUMENT = Path(__file__).parents[3] / "docs" / "scale.md"
COMMAND = ["-m", "harness.cli.main", "run", "--attack", "offload", "--set", "attack.zero_stage=3", "--set",
           "attack.max_steps=4", "--set", "attack.per_device_train_batch_size=2", "--set", "attack.block_size=64",
           "--set", "attack.eval_points=1", "--set", "replicates=1", "--set", "task.max_items=10", "--set",
           "task.train_bytes=60000", "--set", "utility.perplexity_tokens=500", "--limit", "5", "--json"]  # fmt: skip


ACCELERATES = {"ACCELERATE_USE_CPU": "true", "ACCELERATE_USE_FSDP": "true", "ACCELERATE_MIXED_PRECISION": "bf16"}
"""What `accelerate launch` sets for one process, by its options or its config file: not for us to follow."""


def documented(launcher: str) -> list[str]:
    """What the document gives this launcher, but for two processes and without a lock."""
    (line,) = [line for line in DOCUMENT.read_text().splitlines() if line.startswith(f"{launcher} ")]
    words = shlex.split(line)[1:]
    assert words[words.index("run") :] == ["run", "--defense", "dlr", *COMMAND[3:7]]
    return [{"8": "2", "dlr": "none"}.get(word, word) for word in words]


def ran(folder: Path, words: list[str], **environment: str) -> Record:
    done = subprocess.run(
        [sys.executable, *words, "--model", str(folder / "model"), "--out", str(folder / f"out{len(environment)}"),
         "--cache", str(folder / f"cache{len(environment)}")],
        check=False, capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HARNESS_WORKERS": "1", "HF_HUB_OFFLINE": "1", **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return Record.model_validate_json(done.stdout[done.stdout.index("{") :])


@pytest.mark.slow
@pytest.mark.skipif(bool(probes.check("deepspeed")), reason="deepspeed cannot run here")
def test_two_ranks_train_as_one(tmp_path: Path) -> None:
    random_llama().save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    alone = ran(tmp_path, COMMAND, **ACCELERATES)
    together = ran(tmp_path, ["-m", "torch.distributed.run", "--standalone", *documented("torchrun"), *COMMAND[7:]],
                   HARNESS_ONLINE="0")  # fmt: skip
    assert alone.status == together.status == "complete", together.status_reason
    scores = [[point.score for point in record.trajectory] for record in (alone, together)]
    assert scores[1] == pytest.approx(scores[0], rel=1e-4)
    bills = [record.cost.attack for record in (alone, together)]
    assert bills[0] is not None
    assert bills[1] is not None
    assert (bills[0].tokens, bills[0].steps) == (bills[1].tokens, bills[1].steps)
    assert bills[1].flops == pytest.approx(bills[0].flops, rel=0.01)
    assert (bills[1].peak_device_bytes or 0) < (bills[0].peak_device_bytes or 0)


def test_a_launcher_is_refused_where_ranks_make_no_sense() -> None:
    done = subprocess.run([sys.executable, "-m", "harness.cli.main", "list"], check=False, capture_output=True,
                          text=True, env={**os.environ, "RANK": "0", "WORLD_SIZE": "2"})  # fmt: skip
    assert done.returncode == 2
    assert "a launcher with several ranks is for `harness run`" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(bool(probes.check("deepspeed")), reason="deepspeed cannot run here")
def test_a_rank_holds_its_part_of_the_weights_and_no_whole_model(tmp_path: Path) -> None:
    """ZeRO-3 takes the plain model apart parameter by parameter; the plain model itself is neither copied nor moved."""
    script = Path(__file__).parents[2] / "helpers" / "ranks_held.py"
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone",
                           str(script), str(tmp_path)], check=False, capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    for held in found:
        assert held["parts"] == pytest.approx(held["whole"] / 2, rel=0.01)  # an odd one is padded
        assert held["assembled"] == held["assembled_after_a_step"] == 0
        assert held["plain"] == held["whole"]
