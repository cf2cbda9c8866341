"""What is fuzzed: a target takes any bytes, and fails if a reader does anything but read or refuse in one line.

`tests/test_fuzz.py` gives each some hundred inputs by hypothesis; `benchmarks/fuzz.py` a million, with atheris where it
is installed. Bytes are used two ways: as they are, and as choices of what to change in a good document, because random
bytes seldom get past a parser.
"""

from __future__ import annotations

import copy
import json
import re
import struct
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from hostile import NUMBERS, STRINGS, at, places

from harness.errors import UsageError
from harness.numbers.robustness import Cell
from harness.records.items import Item, check_items
from harness.records.record import Record, parse_record
from harness.records.record_files import seal_of
from harness.records.strict_json import loads
from harness.strict_yaml import load_yaml


class Choices:
    """Decisions from bytes; when they run out, always the first."""

    def __init__(self, data: bytes) -> None:
        self.data, self.used = data, 0

    @property
    def left(self) -> bool:
        return self.used < len(self.data)

    def below(self, limit: int) -> int:
        size = 1 if limit <= 256 else 2
        piece = self.data[self.used : self.used + size]
        self.used += size
        return int.from_bytes(piece, "big") % max(limit, 1)

    def value(self, old: Any) -> Any:
        """A hostile value, or one near the old one."""
        kind = self.below(6)
        if kind == 0:
            return NUMBERS[self.below(len(NUMBERS))]
        if kind == 1:
            return list(STRINGS.values())[self.below(len(STRINGS))]
        if kind == 2:
            piece = self.data[self.used : self.used + 8].ljust(8, b"\0")
            self.used += 8
            return struct.unpack("<d", piece)[0]
        if kind == 3:
            text = self.data[self.used : self.used + 12].decode("utf-8", "replace")
            self.used += 12
            return text
        if kind == 4 and isinstance(old, (int, float)):
            return old * (1 + self.below(256)) - self.below(256)
        return [old] if kind == 5 else {"name": old}


def changed(document: Any, choices: Choices) -> Any:
    """A copy with up to four changes: values replaced, keys deleted, doubled and moved."""
    document = copy.deepcopy(document)
    for _ in range(1 + choices.below(4)):
        if not choices.left:
            break
        paths = list(places(document))
        if not paths:
            break
        path, what = paths[choices.below(len(paths))], choices.below(5)
        parent, key = at(document, path[:-1]), path[-1]
        if what == 0:
            del parent[key]
        elif what == 1 and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[key]))
        elif what == 1:
            parent[str(choices.value(key))] = copy.deepcopy(parent[key])
        elif what == 2:
            parent[key] = copy.deepcopy(at(document, paths[choices.below(len(paths))]))
        else:
            parent[key] = choices.value(parent[key])
    return document


def one_line(error: Exception) -> None:
    assert str(error), repr(error)
    assert "\n" not in str(error), repr(error)


@cache
def _folder() -> Path:
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="lockbench-fuzz-", dir=memory if memory.is_dir() else None))


def fuzz_gate(data: bytes) -> None:
    """A safetensors file: refused, or the real library reads it to the same shapes."""
    from safetensors import deserialize

    from harness.models.gate import check_file

    if data[:1] < b"\x40":
        content = data[1:]
    else:
        header = data[2:]
        if data[:1] >= b"\x80":
            good = {"a": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]},
                    "b": {"dtype": "U8", "shape": [3], "data_offsets": [8, 11]},
                    "__metadata__": {"format": "pt"}}  # fmt: skip
            header = json.dumps(changed(good, Choices(data[2:]))).encode()
        content = struct.pack("<Q", len(header)) + header + b"\0" * data[1:2].ljust(1, b"\x0b")[0]
    path = _folder() / "x.safetensors"
    path.write_bytes(content)
    try:
        header_of = check_file(path)
    except UsageError as error:
        return one_line(error)
    real = {name: tuple(info["shape"]) for name, info in deserialize(content)}
    assert real == {name: info.shape for name, info in header_of.items()}
    return None


@cache
def _spec() -> Any:
    from harness.spec import resolve

    return resolve({"defense": "dlr", "attack": "lora", "budget": "steps=5"}).model_dump(mode="json")


def fuzz_spec(data: bytes) -> None:
    """A configuration: refused, or a spec that resolves to itself."""
    from harness.budget import Budget
    from harness.layers import layers, parse_value
    from harness.spec import resolve

    text = data[1:].decode("utf-8", "replace")
    if data[:1] < b"\x60":
        try:
            raw = load_yaml(text)
        except ValueError as error:
            return one_line(error)
    elif data[:1] < b"\x80":
        parse_value(text)
        try:
            Budget.from_text(text)
            raw = layers(None, {"HARNESS_" + text.partition("=")[0]: text.partition("=")[2]}, {}, [text])
        except UsageError as error:
            return one_line(error)
    else:
        raw = changed(_spec(), Choices(data[1:]))
    if not isinstance(raw, dict):
        return None
    try:
        spec = resolve(raw)
    except UsageError as error:
        return one_line(error)
    assert resolve(spec.model_dump(mode="json")).id == spec.id
    return None


@cache
def _cell() -> tuple[Any, list[Item]]:
    from record_factory import make_cell, make_items

    cell = make_cell(items=make_items(n=4, seeds=(1,)))
    return json.loads(cell.record.model_dump_json()), [row for row in cell.items if len(row.item) < 2 or row.item < "2"]


def _record(data: bytes) -> Record | None:
    """The record that the bytes make, through the reader; None when it is refused."""
    try:
        if data[:1] < b"\x20":
            document = loads(data[1:])
        else:
            document = changed(_cell()[0], Choices(data[1:]))
            if isinstance(document, dict):
                document["seal"] = seal_of(json.loads(json.dumps(document, default=str), parse_constant=str))
            document = loads(json.dumps(document).encode("utf-8", "surrogatepass"))
    except ValueError as error:
        return one_line(error)
    try:
        return parse_record(document, "0123")
    except UsageError as error:
        return one_line(error)


def fuzz_record(data: bytes) -> None:
    """A record: refused, or one that is written and read again as it is."""
    record = _record(data)
    if record is not None:
        again = parse_record(loads(record.model_dump_json().encode()), "0123")
        assert again == record


def fuzz_leaderboard(data: bytes) -> None:
    """A record with items: every table and the verification of it, without control characters and in one piece."""
    from leaderboards.formats import FORMATS, render
    from leaderboards.html.payload import payload
    from leaderboards.html.pieces import part_of
    from leaderboards.html.pool import script_json
    from leaderboards.load import Results
    from leaderboards.ranking import rank
    from leaderboards.rows import board_table, cell_rows
    from leaderboards.summary import cell_summary
    from leaderboards.verify import verify_cell

    record = _record(b"\x80" + data[1:])
    if record is None:
        return
    document, items = _cell()
    choices = Choices(data[:1] + data[-6:])
    rows = [item for item in items if choices.below(64)] if data[:1] > b"\xc0" else items
    try:
        rows = check_items(rows)
    except ValueError:
        return
    honest = Cell(Record.model_validate(document), items)
    results = Results([Cell(record, rows), honest], [])
    for mismatch in verify_cell(results.cells[0]):
        assert str(mismatch)
    for table in (board_table(rank(results.cells), results.skipped), cell_rows(results)):
        for kind in FORMATS:
            text = render(table, kind)
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text), kind
            if kind == "json":
                loads(text.encode(), constants=True)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", cell_summary(record))
    data, pool = payload([part_of(results.cells)], rank(results.cells))
    assert not re.search("[<>&\u2028\u2029]", script_json(data, pool))  # nothing on the page ends its script


@cache
def _items_file() -> bytes:
    from harness.records.items import read_table, write_items

    path = _folder() / "good.parquet"
    write_items(path, [Item("attacked", "m", seed, name, 1.0) for seed in (1, 2) for name in "abcde"])
    for _ in range(2):
        read_table(path, "m")  # so that what is known of it is used for what comes out of it
    return path.read_bytes()


def fuzz_items(data: bytes) -> None:
    """A file of items: refused, or read alike as objects and as arrays. (Arrow ended the process at some footers.)"""
    from harness.records.items import read_items, read_table

    content = bytearray(_items_file())
    if data[:1] < b"\x20":
        content = bytearray(data[1:])
    elif data[:1] < b"\x40":  # a footer of its own
        content[4:] = data[1:] + struct.pack("<I", len(data[1:])) + b"PAR1"
    else:
        for place in range(1, len(data) - 2, 3):
            content[int.from_bytes(data[place : place + 2], "big") % len(content)] = data[place + 2]
    path = _folder() / "x.parquet"
    path.write_bytes(content)
    try:
        found: Any = list(read_table(path, "m"))
    except UsageError as error:
        found = one_line(error)
    try:
        assert repr(read_items(path, "m")) == repr(found)
    except UsageError as error:
        one_line(error)
        assert found is None


TARGETS: dict[str, Callable[[bytes], None]] = {
    "gate": fuzz_gate, "spec": fuzz_spec, "record": fuzz_record, "items": fuzz_items,
    "leaderboard": fuzz_leaderboard}  # fmt: skip
