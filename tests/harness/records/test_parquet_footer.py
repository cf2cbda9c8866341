"""A stranger's footer is looked at before Arrow sees it: no byte ends the process; Arrow reads the same claims."""

from __future__ import annotations

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.records.compact_thrift import BINARY, BOOL, I32, I64, Layout, ListOf, Reader
from harness.records.items import Item, write_items
from harness.records.parquet_footer import check_footer

EVERY_BYTE = """
import sys
from pathlib import Path
from harness.errors import UsageError
from harness.records.items import read_items
path = Path(sys.argv[1])
whole = path.read_bytes()
words = []
for at in range(len(whole) - int.from_bytes(whole[-8:-4], "little") - 8, len(whole)):
    for value in {whole[at] ^ 1, whole[at] ^ 128, 0x15, (whole[at] + 22) % 256} - {whole[at]}:
        path.write_bytes(whole[:at] + bytes([value]) + whole[at + 1:])
        try:
            read_items(path)
        except UsageError as error:
            words.append(str(error))
print(len(words), sum("compressed by something else" in word for word in words))
"""


def test_no_byte_of_a_footer_ends_the_process(tmp_path: Path) -> None:
    """A codec that nobody knows did: Arrow throws where Python cannot catch it."""
    write_items(tmp_path / "items.parquet", [Item("attacked", "m", 1, name, 1.0) for name in "abcde"])
    done = subprocess.run([sys.executable, "-c", EVERY_BYTE, str(tmp_path / "items.parquet")], capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-500:]
    refused, codecs = map(int, done.stdout.split())
    assert refused > 1000
    assert codecs >= 12  # of six columns, two values each at least


def written(rows: int, group: int, compression: str = "snappy") -> bytes:
    sink = BytesIO()
    table = pa.table({"a": pa.array(["x"] * rows, pa.string()), "b": pa.array([1.0] * rows, pa.float64())})
    pq.write_table(table, sink, row_group_size=group, compression=compression)
    return sink.getvalue()


@settings(max_examples=30)
@given(st.integers(0, 300), st.integers(1, 100), st.sampled_from(["snappy", "none"]))
def test_what_a_file_claims_is_what_arrow_says(rows: int, group: int, compression: str) -> None:
    data = written(rows, group, compression)
    footer = pq.ParquetFile(BytesIO(data)).metadata
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    size = sum(group.column(number).total_uncompressed_size for group in groups for number in (0, 1))
    check_footer(data, ["a", "b"], rows=rows, size=size)
    if rows:
        with pytest.raises(ValueError, match=f"has {rows} rows"):
            check_footer(data, ["a", "b"], rows=rows - 1, size=size)
        with pytest.raises(ValueError, match="expands to more"):
            check_footer(data, ["a", "b"], rows=rows, size=size - 1)
    with pytest.raises(ValueError, match="its columns are a, b, not b, a"):
        check_footer(data, ["b", "a"], rows=rows, size=size)


LAYOUT: Layout = {1: ListOf({1: I32}), 2: I64, 3: BINARY, 4: BOOL, 5: {}}


@given(st.binary(max_size=200))
def test_any_bytes_are_a_struct_or_refused(data: bytes) -> None:
    reader = Reader(data)
    try:
        found = reader.struct(LAYOUT)
    except ValueError:
        return
    assert 0 < reader.place <= len(data)
    assert set(found) <= set(LAYOUT)


@pytest.mark.parametrize(("data", "value"), [
    ("00", {}), ("26 02 00", {2: 1}), ("06 04 03 00", {2: -2}), ("38 02 6162 11 00", {3: b"ab", 4: True}),
    ("42 00", {4: False}), ("19 2c 1502 00 00 00", {1: [{1: 1}, {}]}), ("19 00 00", {1: []}), ("5c 00 00", {5: {}}),
    ("26 02 06 04 04 00", {2: 2}), ("26 feffffffffffffffff01 00", {2: 2**63 - 1}),
])  # fmt: skip
def test_values(data: str, value: object) -> None:
    """By hand, from the specification of the encoding."""
    assert Reader(bytes.fromhex(data)).struct(LAYOUT) == value


@pytest.mark.parametrize("data", [
    pytest.param("5c 5c 00 00 00", id="deeper than the layout"),
    pytest.param("19 fc ffffffffffffffff7f", id="a list of 2^62"),
    pytest.param("19 25 02 02 00", id="a list of another type"),
    pytest.param("26 ffffffffffffffffffff 00", id="a number without an end"),
    pytest.param("25 02 00", id="a number of another type"),
    pytest.param("06 00 02 00", id="field 0"),
    pytest.param("06 8280 04 02 00", id="a field whose id is 2 in 16 bits"),
    pytest.param("20 00", id="an end that has a number, at which other readers end"),
    pytest.param("38 7f 61 00", id="bytes that are not there"),
    pytest.param("61 00", id="a field that the layout does not have"),
    pytest.param("26 02", id="no end"),
])  # fmt: skip
def test_what_no_honest_writer_writes(data: str) -> None:
    with pytest.raises(ValueError, match="footer"):
        Reader(bytes.fromhex(data)).struct(LAYOUT)
