"""Bring a known model into the cache, checked by hash. The only verb that may use the network."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "bring a known model into the cache, checked by hash"
EXAMPLES = "examples:\n  harness fetch smollm2-135m\n"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("name", help="a model of harness list models")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="default HARNESS_CACHE, else the user's cache")


def run(args: argparse.Namespace) -> int:
    """Fetch, or find it there."""
    from harness import registry
    from harness.cache import default_root
    from harness.models.fetch import fetch

    registry.models().get(args.name)
    print(fetch(args.name, args.cache or default_root(), online=True))
    return 0
