"""What a stranger's parquet file says of itself, looked at before Arrow sees the file.

Arrow trusts a footer in places: it ends the process where it is asked for a codec that it does not know, and recurses
as deep as a schema does. So the few fields that a flat table of ours has are read here, and anything else is refused.
The format: apache/parquet-format, src/main/thrift/parquet.thrift.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from harness.compact_thrift import BINARY, I32, I64, LIST, STRUCT, Reader, Struct

INT64: Final = 2
DOUBLE: Final = 5
BYTE_ARRAY: Final = 6
"""Physical types of columns."""
CODECS: Final = {0: "UNCOMPRESSED", 1: "SNAPPY"}
"""What is read: neither can expand a file a thousandfold."""
_MAGIC = b"PAR1"
_FILE = {1, 2, 3, 4, 5, 6, 7}
_CHUNK = {2, 3, 4, 5, 6, 7}
"""Fields that may be there: no key, and no data in another file."""


def check_footer(data: bytes, columns: Sequence[str], *, rows: int, size: int) -> None:
    """Refuse a file that is no flat table of these columns, or claims to be large.

    Args:
        data: the whole file.
        columns: names, in order.
        rows: most rows.
        size: most bytes of all pages, decompressed.

    Raises:
        ValueError: so it is; says what is wrong.
    """
    length = int.from_bytes(data[-8:-4], "little")
    if data[:4] != _MAGIC or data[-4:] != _MAGIC or not 0 < length <= len(data) - 12:
        raise ValueError("it has no footer of parquet at its end")
    footer = Reader(data[-8 - length : -8]).struct()
    _only(footer, _FILE)
    _check_schema(_structs(footer, 2), columns)
    groups = [_structs(group, 1) for group in _structs(footer, 4)]
    total, claimed = _number(footer, 3), [_number(group, 3) for group in _structs(footer, 4)]
    if not 0 <= total <= rows or min(claimed, default=0) < 0 or sum(claimed) != total:
        raise ValueError(f"it has {total} rows, at most {rows} are read")
    if any(len(chunks) != len(columns) for chunks in groups):
        raise ValueError("a part of it lacks columns")
    described = [_described(chunk) for chunks in groups for chunk in chunks]
    if any(_number(chunk, 4, I32) not in CODECS for chunk in described):
        raise ValueError(f"it is compressed by something else than {' or '.join(CODECS.values())}")
    sizes = [_number(chunk, 6) for chunk in described]
    if min(sizes, default=0) < 0 or sum(sizes) > size:
        raise ValueError(f"it expands to more than {size} bytes")


def _check_schema(elements: list[Struct], columns: Sequence[str]) -> None:
    """One root, and below it nothing but the columns."""
    root, leaves = elements[:1], elements[1:]
    names = [str(leaf.get((4, BINARY), b""), "utf-8", "replace") for leaf in leaves]
    if names != list(columns):
        raise ValueError(f"its columns are {', '.join(names)[:200]}, not {', '.join(columns)}")
    if _number(root[0], 5, I32) != len(leaves) or any((5, I32) in leaf for leaf in leaves):
        raise ValueError("its columns have columns")
    if any(_number(leaf, 1, I32) not in (INT64, DOUBLE, BYTE_ARRAY) for leaf in leaves):
        raise ValueError("its columns are of other types")


def _described(chunk: Struct) -> Struct:
    _only(chunk, _CHUNK)
    found = chunk.get((3, STRUCT))
    if found is None:
        raise ValueError("a part of it is not described")
    return dict(found)


def _only(struct: Struct, allowed: set[int]) -> None:
    if strange := sorted({number for number, _ in struct} - allowed):
        raise ValueError(f"its footer has a field {strange[0]}, which is not read")


def _structs(struct: Struct, field: int) -> list[Struct]:
    found = struct.get((field, LIST))
    if found is None or not all(isinstance(one, dict) for one in found):
        raise ValueError(f"its footer has no list of structs in field {field}")
    return list(found)


def _number(struct: Struct, field: int, kind: int = I64) -> int:
    found: Any = struct.get((field, kind))
    if found is None:
        raise ValueError(f"its footer has no number in field {field}")
    return int(found)
