"""Options that several verbs share, and how they become a spec. lm-eval's spellings are understood too."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.tracking import Reporting

DTYPES = {"float32", "bfloat16", "float16"}


def add_spec_options(parser: argparse.ArgumentParser, *, plural: bool = False) -> None:
    """Options that choose a cell; with `plural`, also comma lists for a grid."""
    group = parser.add_argument_group("what to run")
    group.add_argument("--model", metavar="NAME", help="known name (harness list models), local folder or hub id; "
                       "default tiny. lm-eval's `--model hf --model_args pretrained=...` works too")  # fmt: skip
    group.add_argument("--model-args", metavar="K=V,...", help="lm-eval style: pretrained=PATH,dtype=float32")
    group.add_argument("--defense", metavar="NAME", help="the lock (harness list defenses)")
    group.add_argument("--attack", metavar="NAME", help="the attack (harness list attacks), or a suite: "
                       "standard, or its few for a fast check, standard:quick")  # fmt: skip
    group.add_argument("--task", metavar="NAME", help="what the attacker wants (harness list tasks)")
    group.add_argument("--seed", type=int, metavar="N", help="root seed; default 0")
    group.add_argument("--budget", metavar="K=V,...", help="limits on the attacker, enforced: steps, tokens, flops, "
                       "memory, seconds, trials, examples; for example steps=200,memory=8GiB")  # fmt: skip
    if plural:
        for name in ("models", "defenses", "attacks", "tasks", "seeds"):
            group.add_argument(f"--{name}", metavar="A,B", help=f"grid: comma list of {name}")
    else:
        group.add_argument("--tasks", metavar="A,B", help="utility tasks, as in lm-eval; default minimal_pairs")
    group.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="assignments",
                       help="any key of the spec, repeatable: defense.depth=32 attack.learning_rate=1e-4")  # fmt: skip
    group.add_argument("--config", type=Path, metavar="FILE", help="YAML with the same keys as the printed spec")
    group.add_argument("--limit", type=int, metavar="N", help="items a utility task (part of the cell's identity)")
    group.add_argument("--batch-size", type=int, metavar="N", help="batch size of utility scoring")
    group.add_argument("--device", metavar="D", help="auto, cpu, cuda or cuda:N")
    group.add_argument("--trust-remote-code", action="store_true", default=None,
                       help="let a checkpoint run its own Python code (off by default)")  # fmt: skip


def add_place_options(parser: argparse.ArgumentParser, *, out_default: Path | None = Path("results")) -> None:
    """Options that say where things are; they do not change a cell."""
    group = parser.add_argument_group("where")
    default = Path(os.environ["HARNESS_OUT"]) if out_default and os.environ.get("HARNESS_OUT") else out_default
    text = "folder of results; default HARNESS_OUT, else results" if out_default else "output folder"
    group.add_argument("--out", "--output-path", "-o", type=folder, metavar="DIR", default=default, help=text)
    add_data_option(group)
    add_cache_option(group)
    group.add_argument("--quiet", "-q", action="store_true", help="no progress on stderr")


def add_data_option(parser: argparse._ActionsContainer) -> None:
    """Where the data pack is."""
    parser.add_argument("--data-dir", type=folder, metavar="DIR", help="the data pack; default HARNESS_DATA")


def add_cache_option(parser: argparse._ActionsContainer) -> None:
    """Where the cache is."""
    parser.add_argument("--cache", type=folder, metavar="DIR",
                        help="cache of shared work; default HARNESS_CACHE, else the user's cache")  # fmt: skip


def add_worker_option(parser: argparse.ArgumentParser) -> None:
    """How much of the machine to use; it does not change a cell."""
    parser.add_argument("--workers", type=int, metavar="N", help="processes in which pieces of a cell (references, "
                        "attacks) run side by side when the model is small and on the CPU; default HARNESS_WORKERS, "
                        "else one a core")  # fmt: skip


def add_report_option(parser: argparse.ArgumentParser) -> None:
    """Where else to show curves and results; it does not change a cell."""
    parser.add_argument("--report-to", metavar="NAME,...", help="wandb, tensorboard, mlflow, all or none (--report_to "
                        "works too): curves and results go there, files into OUT/logs; default HARNESS_REPORT_TO, "
                        "else none")  # fmt: skip


def reporting(args: argparse.Namespace) -> Reporting:
    """`--report-to`, else `HARNESS_REPORT_TO`, else none.

    Raises:
        UsageError: an unknown name, or one that is not installed.
    """
    from harness.tracking import Reporting, parse_names

    names = parse_names(getattr(args, "report_to", None) or os.environ.get("HARNESS_REPORT_TO"))
    return Reporting(names, args.out / "logs") if names else Reporting()


def workers(args: argparse.Namespace) -> int | None:
    """`--workers`, else `HARNESS_WORKERS`, else None (one a core).

    Raises:
        UsageError: not a positive whole number.
    """
    given = args.workers if args.workers is not None else os.environ.get("HARNESS_WORKERS") or None
    if given is None:
        return None
    if not str(given).isdigit() or int(given) < 1:
        raise UsageError(f"--workers {given}: expected a whole number from 1")
    return int(given)


def folder(text: str) -> Path:
    """A folder from the command line; an empty name (an unset variable) is not the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("the folder's name is empty")
    return Path(text)


def raw_spec(args: argparse.Namespace) -> dict[str, Any]:
    """The command line as raw nested values, only what was given."""
    raw: dict[str, Any] = {}
    model = _model(args)
    if model:
        raw["model"] = model
    for name in ("defense", "attack", "task", "seed", "budget", "device"):
        if getattr(args, name, None) is not None:
            raw[name] = getattr(args, name)
    utility = {"limit": args.limit, "batch_size": args.batch_size}
    if args.tasks is not None and not hasattr(args, "models"):
        utility["tasks"] = args.tasks
    if any(value is not None for value in utility.values()):
        raw["utility"] = {key: value for key, value in utility.items() if value is not None}
    return raw


def _model(args: argparse.Namespace) -> dict[str, Any]:
    model: dict[str, Any] = {}
    for pair in filter(None, (args.model_args or "").replace(" ", ",").split(",")):
        key, equals, value = pair.partition("=")
        if key not in ("pretrained", "dtype", "revision", "trust_remote_code") or not equals:
            raise UsageError(f"--model_args {pair!r}: expected pretrained=, dtype=, revision= or trust_remote_code=")
        model["name" if key == "pretrained" else key] = value
    if args.model is not None and not (args.model in ("hf", "huggingface") and "name" in model):
        if args.model in ("hf", "huggingface"):
            raise UsageError(f"--model {args.model} needs --model_args pretrained=PATH")
        model["name"] = args.model
    if args.trust_remote_code:
        model["trust_remote_code"] = True
    return model


def data_dir(args: argparse.Namespace) -> Path | None:
    """`--data-dir`, else `HARNESS_DATA`, else None.

    Raises:
        UsageError: the folder is named but is not there.
    """
    given = args.data_dir or (Path(os.environ["HARNESS_DATA"]) if os.environ.get("HARNESS_DATA") else None)
    if given is not None and not given.is_dir():
        raise UsageError(f"data folder {given} " + ("is not a folder" if given.exists() else "does not exist"))
    return Path(given) if given is not None else None


def as_yaml(spec: Any) -> str:
    """The merged spec as YAML, with the cell's id in the first line; valid for `--config`."""
    import yaml

    body = yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=110)
    return f"# cell {spec.id}\n{body}"


def workshop(args: argparse.Namespace, progress: Any) -> Any:
    """The workshop over the cache and data that the options name."""
    from harness.quiet import quiet_libraries

    quiet_libraries()
    from harness.cache import Cache, default_root
    from harness.workshop import Workshop

    return Workshop(cache=Cache(args.cache or default_root()), data_dir=data_dir(args), progress=progress,
                    reporting=reporting(args))  # fmt: skip
