"""YAML from strangers: the safe loader, one value a key, and no more of it than is written there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from harness.errors import UsageError
from harness.records.strict_json import DEPTH

MAX_BYTES = 1 << 20
MAX_NODES = 100_000
"""Values in a document, those behind an alias counted wherever it stands."""


def load_yaml(text: str) -> Any:
    """The value of one YAML document.

    Raises:
        ValueError: not YAML, or YAML that is refused: a key twice in one mapping (YAML would take the last), nesting
            that is too deep, an alias that contains itself, aliases that grow beyond `MAX_NODES` values; one line.
    """
    try:
        loader = _Strict(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _size(node, {}, DEPTH)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError:
        raise ValueError(f"nested deeper than {DEPTH}") from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except (ValueError, OverflowError, TypeError, AttributeError) as error:  # 5000 digits
        raise ValueError(" ".join(str(error).split())) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping from a file.

    Raises:
        UsageError: not there, too large, not a mapping, or what `load_yaml` refuses.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        text = data.decode("utf-8")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"cannot read {path}: it is not a text file") from None
    if len(data) > MAX_BYTES:
        raise UsageError(f"cannot read {path}: it is larger than {MAX_BYTES} bytes")
    try:
        values = load_yaml(text)
    except ValueError as error:
        raise UsageError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        found = "nothing" if values is None else type(values).__name__
        raise UsageError(f"{path}: expected a mapping of keys to values, found {found}")
    return values


_TAG = "tag:yaml.org,2002:"
_KINDS = {_TAG + kind for kind in ("str", "int", "float", "bool", "null", "seq", "map", "merge")}


class _Strict(yaml.SafeLoader):
    """The safe loader, strict about keys; a date is text, as in JSON."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in found if tag != _TAG + "timestamp"]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def fetch_flow_collection_start(self, kind: Any) -> None:
        """The scanner looks ahead, in time quadratic in the depth: deep brackets end here, not where they are read."""
        self._check_depth(self.flow_level)
        super().fetch_flow_collection_start(kind)

    def add_indent(self, column: int) -> bool:
        self._check_depth(len(self.indents))
        return bool(super().add_indent(column))

    def _check_depth(self, depth: int) -> None:
        if depth > DEPTH:
            raise yaml.scanner.ScannerError(None, None, f"nested deeper than {DEPTH}", self.get_mark())

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if key.tag == _TAG + "merge":
                continue
            value = self.construct_object(key, deep=True)
            if not isinstance(value, (str, int, float)):
                raise _refused("a key is not a word or a number", node)
            if value in seen:
                raise _refused(f"the key {value!r} is given twice", node)
            seen.add(value)
        return super().construct_mapping(node, deep)


def _refused(why: str, node: yaml.Node) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, why, node.start_mark)


def _size(node: yaml.Node, known: dict[int, int], depth: int) -> int:
    """Values at and below a node, aliases written out; an alias to what is being counted is one into itself."""
    if depth < 0:
        raise ValueError(f"nested deeper than {DEPTH}")
    if node.tag not in _KINDS:
        raise ValueError(f"{node.tag.removeprefix(_TAG)[:80]!r} is no kind of value that is read here")
    if id(node) not in known:
        known[id(node)] = MAX_NODES + 1  # until it is counted: an alias into itself is endless
        parts = node.value if isinstance(node.value, list) else []
        inner = [part for pair in parts for part in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = 1 + sum(_size(part, known, depth - 1) for part in inner)
    if known[id(node)] > MAX_NODES:
        raise ValueError(f"its aliases (*name) stand for more than {MAX_NODES} values")
    return known[id(node)]
