"""Lock a model and write a checkpoint folder that plain transformers and harness both load."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from harness.cli import checks, options

HELP = "write a locked checkpoint that others can load"
EXAMPLES = """\
examples:
  harness lock --defense dlr --model tiny -o tiny-locked
  harness lock --defense dlr --model ./my-llama -o my-llama-locked
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    options.add_spec_options(parser)
    options.add_place_options(parser, out_default=None)
    parser.add_argument("--json", action="store_true", help="print the bill and the report as JSON")


def run(args: argparse.Namespace) -> int:
    """Lock (or take the lock from the cache) and copy the folder out."""
    import shutil

    from harness.errors import UsageError
    from harness.files import check_output_folder
    from harness.layers import from_process
    from harness.progress import Progress
    from harness.quiet import stdout_kept

    if args.defense is None:
        raise UsageError("--defense is missing; harness list defenses shows what there is")
    if args.out is None:
        raise UsageError("-o DIR is missing: where the locked checkpoint goes")
    spec = from_process(args.config, options.raw_spec(args), args.assignments)
    target: Path = args.out
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target} is not a folder; choose a new one")
    if target.exists() and any(target.iterdir()):
        raise UsageError(f"{target} is not empty; choose a new folder")
    checks.check_inputs([spec], options.data_dir(args), attack=False)
    check_output_folder(target.parent)
    checks.check_cache(args.cache)
    progress = Progress(quiet=args.quiet)
    with stdout_kept(), progress.showing():
        workshop = options.workshop(args, progress)
        lock = workshop.lock(spec, workshop.base(spec))
    shutil.copytree(lock.folder / "model", target, dirs_exist_ok=True)
    if (lock.folder / "secret.safetensors").exists():
        secret = target.with_name(target.name + ".secret.safetensors")
        shutil.copyfile(lock.folder / "secret.safetensors", secret)
        progress.note(f"the secret is apart from the release: {secret}")
    if args.json:
        print(json.dumps({"folder": str(target), "digest": lock.digest, "bill": lock.bill.model_dump(mode="json"),
                          "report": lock.report}, indent=1))  # fmt: skip
    else:
        print(f"{target}: {spec.defense['name']} on {spec.model.name}, weights {lock.digest[:16]}, "
              f"{lock.bill.flops / 1e12:.2f} TFLOP, {lock.bill.seconds:.0f} s of locking")  # fmt: skip
    return 0
