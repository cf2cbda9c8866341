"""`python tests/smoke.py smoke-dlr-lora FOLDER`: one short cell, through the command line, checked by its record.

Four steps prove that the parts fit together, not that an attack is strong; the tests and the published records do that.
"""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from harness.cli.main import main

SHORT = ["replicates=1", "attack.max_steps=4", "attack.eval_points=1"]
SHORT_LOCK = {
    "dlr": ["defense.module_steps=4", "defense.cascade_steps=0", "defense.polish_steps=4"],
    "specdef": ["defense.max_steps=4"], "pmp": ["defense.max_steps=4", "defense.discovery_steps=4"],
}  # fmt: skip


def smoke(environment: str, folder: Path, *more: str) -> int:
    """Run the cell that `environment` names (`smoke-<defense>-<attack>`); 0 if its record has an outcome."""
    _, defense, attack = environment.split("-")
    settings = [f"--set={pair}" for pair in SHORT + SHORT_LOCK.get(defense, [])]
    printed = StringIO()
    with redirect_stdout(printed):
        status = main(["run", "--defense", defense, "--attack", attack, "--limit", "40", "--json", *settings,
                       "--out", str(folder / "results"), "--cache", str(folder / "cache"), *more])  # fmt: skip
    record = json.loads(printed.getvalue())
    print(environment, record["status"], record["status_reason"] or "", record["score"])
    return status or record["status"] not in ("complete", "unavailable")


if __name__ == "__main__":
    sys.exit(smoke(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]))
