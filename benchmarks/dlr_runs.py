"""What the DLR-Lock benchmarks share: lock a fresh base, measure what is left, keep finished rows in JSON."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock

from defenses.dlr import DLRLock, DLRSettings
from harness.bill import Bill
from harness.corpus import corpus
from harness.meters.meter import Meter
from harness.models.load import load_model
from harness.plugins import LockContext, Released
from harness.progress import Progress
from harness.seeds import derive
from harness.utility import UtilityScores, UtilitySpec, evaluate_utility
from harness.utility.fidelity import fidelity, heldout_blocks

DOCS = Path(__file__).parents[1] / "docs"
_BASES: dict[str, UtilityScores] = {}


def arguments(summary: str) -> argparse.ArgumentParser:
    """`--model`, `--corpus`, `--seed`, `--data-dir`, and where to work."""
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--corpus", default="python_docs", help="distilled on, and its held-out part measured on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("HARNESS_DATA"))
    parser.add_argument("--work", type=Path, default=Path(".dlr-work"), help="scratch")
    return parser


def base_of(args: argparse.Namespace) -> Released:
    """A fresh copy of the base."""
    return load_model(args.model, data_dir=args.data_dir)


def lock(settings: DLRSettings, args: argparse.Namespace) -> tuple[Released, Bill, dict[str, Any]]:
    """The locked model, its bill, and the lock's own report."""
    base, meter = base_of(args), Meter()
    args.work.mkdir(parents=True, exist_ok=True)
    context = LockContext(seed=derive(args.seed, "lock"), device="cpu", folder=args.work, meter=meter,
                          data_dir=args.data_dir, progress=Progress(),
                          corpus=lambda split: corpus(args.corpus, split, args.data_dir))  # fmt: skip
    with meter.stage("lock"):
        locked = DLRLock(settings).lock(base, context)
    return dataclasses.replace(base, model=locked.model, digest="locked"), meter.bills["lock"], locked.report


def quality(base: Released, other: Released, args: argparse.Namespace, *, pairs: bool) -> dict[str, float]:
    """Perplexity ratio, KL and top-1 agreement on held-out text, and (`pairs`) minimal-pair retention over chance."""
    spec = UtilitySpec(tasks=("minimal_pairs",) if pairs else (), perplexity_corpus=args.corpus)
    ours = evaluate_utility(other, spec, args.data_dir)
    if base.digest not in _BASES:  # once a process, with everything
        everything = spec.model_copy(update={"tasks": ("minimal_pairs",)})
        _BASES[base.digest] = evaluate_utility(base, everything, args.data_dir)
    theirs = _BASES[base.digest]
    close = fidelity(base, other, heldout_blocks(base.tokenizer, spec, args.data_dir))
    found = {"perplexity_base": theirs.perplexity.per_token,
             "perplexity_ratio": ours.perplexity.per_token / theirs.perplexity.per_token, "kl": close["kl"],
             "top1_agreement": close["top1_agreement"]}  # fmt: skip
    if pairs:
        task, before = ours.tasks["minimal_pairs"], theirs.tasks["minimal_pairs"]
        chance = task.chance or 0.0
        found |= {"minimal_pairs_base": before.score, "minimal_pairs": task.score,
                  "minimal_pairs_retention": (task.score - chance) / (before.score - chance)}  # fmt: skip
    return found


class Rows:
    """Finished rows by key, in a JSON file that is rewritten after each; rows of another base are not mixed in."""

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        about = {**about, "versions": {name: version(name) for name in ("torch", "transformers")}}
        self.path, self.content = path, {"about": about, "rows": {}}
        self._read()

    @property
    def rows(self) -> dict[str, Any]:
        """By key."""
        found: dict[str, Any] = self.content["rows"]
        return found

    def once(self, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The row, made now if it is not there; several processes may fill one file."""
        if key not in self.rows:
            made = make()
            with FileLock(self.path.with_suffix(".lock")):
                self._read()
                self.rows[key] = made
                partial = self.path.with_suffix(".partial")
                partial.write_text(json.dumps(self.content, indent=1, allow_nan=False) + "\n")
                partial.replace(self.path)
        row: dict[str, Any] = self.rows[key]
        return row

    def _read(self) -> None:
        if self.path.exists() and (old := json.loads(self.path.read_text()))["about"] == self.content["about"]:
            self.content = old


def replace_between(path: Path, mark: str, text: str) -> None:
    """Put `text` between `<!-- mark -->` and `<!-- /mark -->` of a page."""
    page = path.read_text()
    start, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    head, rest = page.split(start)
    path.write_text(f"{head}{start}\n{text}\n{end}{rest.split(end)[1]}")
