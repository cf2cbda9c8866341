"""Probes answer None or one sentence, and cost nothing until asked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness import probes
from harness.errors import UsageError
from harness.probes import PROBES, check


@pytest.mark.parametrize("name", PROBES)
def test_none_or_one_sentence(name: str) -> None:
    reason = check(name)
    assert reason is None or (reason and "\n" not in reason)


def test_unknown_probe() -> None:
    with pytest.raises(UsageError, match="Did you mean 'deepspeed'"):
        check("deepsped")


def test_importing_the_module_imports_no_torch() -> None:
    code = "import sys, harness.probes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_deepspeed_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "find_spec", lambda name: object())
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    assert "no-such-compiler" in str(check("deepspeed"))
    monkeypatch.setattr(probes, "find_spec", lambda name: None if name == "ninja" else object())
    monkeypatch.setattr(probes.shutil, "which", lambda name: None)
    assert "ninja" in str(check("deepspeed"))
    monkeypatch.setattr(probes, "find_spec", lambda name: None)
    assert "lockbench[deepspeed]" in str(check("deepspeed"))
    assert "lockbench[quant]" in str(check("bitsandbytes"))


def test_online_does_not_touch_the_network_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_ONLINE", raising=False)
    monkeypatch.setattr(probes.socket, "create_connection", lambda *args, **options: pytest.fail("it connected"))
    assert "HARNESS_ONLINE=1" in str(check("online"))

    def refuse(*args: object, **options: object) -> None:
        raise OSError("no route")

    monkeypatch.setenv("HARNESS_ONLINE", "1")
    monkeypatch.setattr(probes.socket, "create_connection", refuse)
    assert "no route" in str(check("online"))


def test_pack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    assert "HARNESS_DATA" in str(check("pack"))
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    assert "MANIFEST.md" in str(check("pack"))
    (tmp_path / "MANIFEST.md").write_text("x")
    assert check("pack") is None


def test_bf16_follows_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False})
    assert "no bf16 instructions" in str(check("bf16"))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert check("bf16") is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    assert "Ampere" in str(check("bf16"))
    assert check("cuda") is None
