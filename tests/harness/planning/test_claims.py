"""Claims: one holder, gone with its process; a lease that is not kept fresh is taken over, one that is is not."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UsageError
from harness.planning.claims import Claims

LEASE = 2.0


def _hold(out: str, mode: Any, ready: Any) -> None:
    with Claims(Path(out), mode, lease_seconds=LEASE).held("job") as mine:
        ready.put(mine)
        time.sleep(600)


def holder(out: Path, mode: str) -> Any:
    """Another process that holds the claim."""
    context = multiprocessing.get_context("fork")
    ready = context.Queue()
    process = context.Process(target=_hold, args=(str(out), mode, ready), daemon=True)
    process.start()
    assert ready.get(timeout=60) is True
    return process


def wait_until_free(claims: Claims) -> None:
    deadline = time.monotonic() + 60
    while not claims.free("job"):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("mode", ["lock", "lease"])
def test_one_holds_it_and_a_killed_holder_holds_nothing(tmp_path: Path, mode: Any) -> None:
    other, claims = holder(tmp_path, mode), Claims(tmp_path, mode, lease_seconds=LEASE)
    with claims.held("job") as mine:
        assert not mine
    for _ in range(50):  # alive, it keeps its lease fresh for longer than a lease lives
        assert not claims.free("job")
        time.sleep(0.05)
    os.kill(other.pid, signal.SIGKILL)
    other.join()
    wait_until_free(claims)
    with claims.held("job") as mine:
        assert mine
    assert claims.free("job")


def test_a_lease_of_a_holder_on_a_lost_machine_runs_out(tmp_path: Path) -> None:
    """Its process cannot be looked for from here, as on another host: a stopped one beats no longer, but is there."""
    other, claims = holder(tmp_path, "lease"), Claims(tmp_path, "lease", lease_seconds=LEASE)
    os.kill(other.pid, signal.SIGSTOP)
    try:
        wait_until_free(claims)
    finally:
        os.kill(other.pid, signal.SIGKILL)
        other.join()


def test_a_name_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be part"):
        Claims(tmp_path).free("../job")
    assert Claims(tmp_path).mode == "lock"
