"""A matrix on a CUDA device: its jobs are forked from a server that must not have touched the device."""

from __future__ import annotations

from pathlib import Path

import pytest
from cell_cases import QUICK
from cheap_cells import environment, matrix_command

from harness import probes
from harness.records.record_files import read_record
from harness.testing import byte_tokenizer, random_llama

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(probes.check("cuda")), reason=str(probes.check("cuda")))]


NEEDS_RAY = pytest.mark.skipif(bool(probes.check("ray")), reason=str(probes.check("ray")))


@pytest.mark.parametrize("executor", ["local", pytest.param("ray", marks=NEEDS_RAY)])
def test_jobs_on_a_gpu(executor: str, tmp_path: Path) -> None:
    import subprocess

    random_llama().save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    common = {key: value for key, value in QUICK.items() if key not in ("attack", "task")}
    grid = {**common, "model": str(tmp_path / "model"), "device": "cuda", "defenses": ["none", "specdef_reparam"],
            "attacks": [QUICK["attack"]], "tasks": [QUICK["task"]]}  # fmt: skip
    given = ["--executor", "ray", "--resources", "gpus=0.5"] if executor == "ray" else ["--workers", "2"]
    done = subprocess.run(matrix_command(grid, tmp_path, *given), check=False, capture_output=True, text=True,
                          env=environment())  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = [read_record(path) for path in (tmp_path / "out" / "cells").iterdir()]
    assert [record and record.status for record in found] == ["complete"] * 2
