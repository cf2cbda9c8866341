"""Options that say where and how the jobs of a matrix run; they do not change a cell."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli import options
from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.executors.base import Executor, Place
    from harness.planning.scheduler import Rules
    from harness.spec import Spec

EXECUTORS = ("local", "ray", "inline")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    group = parser.add_argument_group("how to run it")
    group.add_argument("--executor", metavar="NAME", default="local", help="local: a process a cell (default); ray: a "
                       "Ray cluster; inline: in this process")  # fmt: skip
    group.add_argument("--workers", type=int, metavar="N", help="jobs at once; default HARNESS_WORKERS, else one a "
                       "core where every model is small and on the CPU, else 1; on ray, what fits")  # fmt: skip
    group.add_argument("--timeout", type=float, metavar="SECONDS", help="a cell, or a piece that cells share, that "
                       "takes longer is stopped and recorded as failed; default: none")  # fmt: skip
    group.add_argument("--retries", type=int, metavar="N", default=3, help="times a job is tried again whose process "
                       "or machine died (an error is not tried again); default 3")  # fmt: skip
    group.add_argument("--claims", metavar="MODE", default="auto", help="how commands on one folder share the work: "
                       "lock, lease (network file systems without locks) or auto")  # fmt: skip
    group.add_argument("--resources", metavar="K=V,...", help="of a job on ray: cpus=1,gpus=0.5,memory=8GiB")
    group.add_argument("--ray-address", metavar="ADDRESS", help="cluster to use; default RAY_ADDRESS, else one that "
                       "is started here and ends with the command")  # fmt: skip
    group.add_argument("--storage", metavar="KIND", default="shared", help="how ray's machines exchange files: shared "
                       "(cache and --out are at the same path everywhere) or objects (Ray's object store)")  # fmt: skip


def check(args: argparse.Namespace) -> None:
    """Refuse what cannot be.

    Raises:
        UsageError: an unknown name, a number out of range, or Ray is asked for and is not installed.
    """
    from harness.settings import unknown

    for name, allowed in (("executor", EXECUTORS), ("claims", ("auto", "lock", "lease")),
                          ("storage", ("shared", "objects"))):  # fmt: skip
        if getattr(args, name) not in allowed:
            raise UsageError(unknown(getattr(args, name), allowed, name))
    if args.timeout is not None and not args.timeout > 0:
        raise UsageError(f"--timeout {args.timeout:g}: expected seconds above 0")
    if args.retries < 0:
        raise UsageError(f"--retries {args.retries}: expected a whole number from 0")
    if args.executor == "ray":
        from harness import probes
        from harness.executors.resources import Resources

        if reason := probes.check("ray"):
            raise UsageError(f"--executor ray: {reason}")
        Resources.from_text(args.resources or "")


def executor(args: argparse.Namespace, cells: Sequence[Spec], data_dir: Path | None) -> tuple[Executor, Place, Rules]:
    """What the options say, over the folders that they name."""
    from harness.cache import default_root
    from harness.executors.base import Place
    from harness.planning.scheduler import Rules

    place = Place(out=args.out.absolute(), cache=(args.cache or default_root()).absolute(),
                  data_dir=data_dir and data_dir.absolute(), claims=args.claims,
                  reporting=options.reporting(args))  # fmt: skip
    return _executor(args, cells, place), place, Rules(timeout=args.timeout, retries=args.retries)


def _executor(args: argparse.Namespace, cells: Sequence[Spec], place: Place) -> Executor:
    workers: Any = options.workers(args)
    if args.executor == "inline":
        from harness.executors.inline import InlineExecutor

        return InlineExecutor(place)
    from harness.executors.local import PRELOAD, LocalExecutor
    from harness.executors.slots import modules, slots

    preload = [*PRELOAD, *modules(cells, place.data_dir)]
    if args.executor == "ray":
        from harness.executors.ray import RayExecutor
        from harness.executors.resources import Resources

        return RayExecutor(place, Resources.from_text(args.resources or ""), slots=workers, address=args.ray_address,
                           storage=args.storage, preload=preload)  # fmt: skip
    return LocalExecutor(place, slots(cells, place.data_dir, workers), preload=preload)
