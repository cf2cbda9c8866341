"""Take in a locked checkpoint that others released: check it, compare it with its base, write the spec that attacks it.

The spec names the checkpoint as the defense `external`: `harness run --config FILE --attack standard` ranks it like a
built-in lock.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from harness.cli import checks, options

HELP = "take in a locked checkpoint of others, to attack and rank it"
EXAMPLES = """\
examples:
  harness import ./my-llama-tar --model ./my-llama --label TAR -o tar.yaml
  harness import org/llama-tar --revision <40 hex digits> --model ./my-llama
  harness run --config tar.yaml --attack standard      then: what ranks a lock
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="the locked checkpoint: a folder or a hub id")
    parser.add_argument("--model", metavar="NAME", required=True, help="its base: known name, local folder or hub id")
    parser.add_argument("--revision", metavar="SHA", help="commit of a hub id, all 40 hex digits")
    parser.add_argument("--label", metavar="NAME", default="", help="what tables call it, for example TAR")
    parser.add_argument("--device", metavar="D", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--trust-remote-code", action="store_true",
                        help="let the checkpoint run its own Python code (off by default)")  # fmt: skip
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="YAML for --config of run and matrix; "
                        "default CHECKPOINT's name with .yaml, here")  # fmt: skip
    group = parser.add_argument_group("where")
    options.add_data_option(group)
    options.add_cache_option(group)
    group.add_argument("--quiet", "-q", action="store_true", help="no progress on stderr")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")


def run(args: argparse.Namespace) -> int:
    """Check, load, compare, write."""
    import yaml

    from harness.errors import UsageError
    from harness.files import atomic_write_text, check_output_file
    from harness.layers import from_process
    from harness.progress import Progress
    from harness.quiet import stdout_kept

    target: Path = args.output or Path(Path(args.checkpoint).name + ".yaml")
    if target.exists():
        raise UsageError(f"{target} is there already; choose another file with -o")
    chosen: dict[str, Any] = {"name": "external", "path": args.checkpoint, "label": args.label,
                              "trust_remote_code": args.trust_remote_code}  # fmt: skip
    if args.revision is not None:
        chosen["revision"] = args.revision
    spec = from_process(None, {"model": args.model, "defense": chosen, "device": args.device}, [])
    checks.check_inputs([spec], options.data_dir(args), attack=False)
    check_output_file(target)
    checks.check_cache(args.cache)
    progress = Progress(quiet=args.quiet)
    with stdout_kept(), progress.showing():
        workshop = options.workshop(args, progress)
        base = workshop.base(spec)
        lock = workshop.lock(spec, base)
        locked = workshop.locked(spec, lock)
        if locked.digest == base.digest:
            raise UsageError(f"{args.checkpoint} has the weights of {args.model}: it is not locked")
        distance = workshop.fidelity(spec, base, locked)
    found = {"file": str(target), "checkpoint": args.checkpoint, "base": args.model, "digest": locked.digest,
             "base_digest": base.digest, "parameters": locked.model.num_parameters(), "dtype": distance["dtype"],
             "kl": distance["kl"], "top1_agreement": distance["top1_agreement"],
             "lock": (locked.lock or {}).get("defense")}  # fmt: skip
    body = {"model": spec.model.model_dump(mode="json"), "defense": spec.defense}
    atomic_write_text(target, f"# {args.checkpoint}, locked by others, as harness import found it\n"
                      + yaml.safe_dump(body, sort_keys=False))  # fmt: skip
    print(json.dumps(found, indent=1) if args.json else _told(found))
    return 0


def _told(found: dict[str, Any]) -> str:
    named = f"; written by harness lock ({found['lock']})" if found["lock"] else ""
    return (f"{found['checkpoint']}: {found['parameters']:,} parameters, weights {found['digest'][:16]}{named}\n"
            f"beside {found['base']} ({found['base_digest'][:16]}): KL {found['kl']:.3g} a token, the same next token "
            f"for {found['top1_agreement']:.1%}\n"
            f"{found['file']}: harness run --config {found['file']} --attack standard")  # fmt: skip
