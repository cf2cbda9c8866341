"""A record on disk: items and log are written first, the record last, with their sha256 inside and a seal over itself.

So a killed, damaged or edited cell never reads as complete. A seal is no signature. It finds what was changed by
accident or by hand; who makes a new one is found by what does not follow from the items, and by running the cell again
(`harness verify --rerun`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from harness.errors import UsageError
from harness.files import atomic_write_text, canonical_json, read_regular, sha256
from harness.records.cell_files import ITEMS, LOG, MAX_BYTES, RECORD, CellFiles
from harness.records.items import Item, write_items
from harness.records.record import SCHEMA_VERSION, Record, dumps, parse_record
from harness.records.redact import redact, redact_tree
from harness.records.strict_json import loads


def write_record(folder: Path, record: Record, items: Iterable[Item], log: str) -> Record:
    """Write the three files of a cell, the record last; returns the record as written.

    Raises:
        ValueError: items that `harness.records.items.check_items` refuses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)  # an old record must not vouch for new items
    write_items(folder / ITEMS, items)
    atomic_write_text(folder / LOG, redact(log))
    files = {name: sha256(folder / name) for name in (ITEMS, LOG)}
    provenance = record.provenance.model_copy(update={"files": files})
    record = sealed(record.model_copy(update={"provenance": provenance, "schema_version": SCHEMA_VERSION}))
    atomic_write_text(folder / RECORD, dumps(record))
    return record


def sealed(record: Record) -> Record:
    """The record as it is written: without secrets, and with its seal."""
    typed = ("spec", "model")  # here a path is what the user typed, and part of what the id is the hash of
    clean = Record.model_validate({key: redact_tree(value, paths=key not in typed)
                                   for key, value in record.model_dump(mode="json").items()})  # fmt: skip
    return clean.model_copy(update={"seal": seal_of(clean.model_dump(mode="json"))})


def seal_of(document: Mapping[str, Any]) -> str:
    """sha256 over the canonical JSON of a record as parsed JSON, its seal left out."""
    return hashlib.sha256(canonical_json(_unsealed(document)).encode()).hexdigest()


def seal_fits(document: Mapping[str, Any], seal: str) -> bool:
    """Whether `seal_of` gives this seal of a document that `strict_json.loads` read.

    orjson's spelling is tried first, with numbers as Python spells them. Where that has this sha256 and is JSON of the
    same document, the document is the one that was sealed.
    """
    plain = _unsealed(document)
    try:
        quick = orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:  # a lone surrogate
        return seal == seal_of(document)
    text = _respelled(quick)
    printable = text.isascii() and b"\x7f" not in text  # canonical JSON escapes the rest
    if printable and hashlib.sha256(text).hexdigest() == seal and (text is quick or orjson.loads(text) == plain):
        return True
    return seal == seal_of(document)


def _respelled(text: bytes) -> bytes:
    """What orjson wrote, with small numbers as Python spells them: `1e-07` for `1e-7`, `1e-05` for `0.00001`.

    Text that looks like such a number behind a text's quote is changed too; then this is no JSON of the document.
    """
    if b"e-" in text:
        text = _SHORT.sub(b"e-0", text)
    return _SMALL.sub(_python, text) if b"0.0000" in text else text


def _python(found: re.Match[bytes]) -> bytes:
    start = found.start()
    inside = found.string[start - 1 : start].isdigit()  # of 10.00001
    return found[0] if inside else repr(float(found[0])).encode()


_SHORT, _SMALL = re.compile(rb"e-(?=\d[,}\]])"), re.compile(rb"0\.0000\d+(?=[,}\]])")


def _unsealed(document: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key != "seal"}


def read_record(folder: Path) -> Record | None:
    """The record in `folder`; None if there is none, or if any of its files is missing, cut short or altered.

    Raises:
        UsageError: a whole document that is not a record of a schema version that is read here.
    """
    try:
        document = read_document(folder)
    except (OSError, ValueError):  # absent, cut short, or not JSON
        return None
    record = parse_record(document, folder.name)
    return None if faults(folder, document, record) else record


def read_document(folder: Path) -> Any:
    """The JSON in `folder`, unchecked.

    Raises:
        OSError: there is none.
        ValueError: it is not strict JSON, not a file of its own, or too large; says which.
    """
    return loads(read_regular(folder / RECORD, MAX_BYTES))


def faults(
    folder: Path, document: Mapping[str, Any], record: Record, files: CellFiles | None = None
) -> list[str]:
    """What is not as it was when the record was written, a line each: the record itself, or a file beside it.

    Args:
        folder: the cell's.
        document: from `read_document`.
        record: from `parse_record` of it.
        files: what was read of the folder so far.
    """
    files = files or CellFiles(folder)
    found = []
    if record.seal is not None and not seal_fits(document, record.seal):
        found.append("the seal does not fit: the record was changed after it was written")
    said = record.provenance.files
    if set(said) != {ITEMS, LOG}:
        found.append(f"it names the files {sorted(said)}, not {ITEMS} and {LOG}")
    for name in sorted(set(said) & {ITEMS, LOG}):
        try:
            same = files.sha256(name).hex() == said[name]
        except (OSError, ValueError) as error:
            found.append(str(error) if isinstance(error, ValueError) else f"{name} cannot be read: {error.strerror}")
            continue
        found += [] if same else [f"{name} has another sha256 than the record says"]
    return found


def finished(cell: str, spec: Mapping[str, Any], out: Path, *, complete: bool = True) -> Record | None:
    """The record of a cell, if there is a complete one (or, unless `complete`, any).

    Raises:
        UsageError: it is of another spec.
    """
    record = read_record(out / "cells" / cell)
    if record is None or (complete and record.status != "complete"):
        return None
    if canonical_json(record.spec) != canonical_json(spec):
        raise UsageError(f"cell {cell} in {out} was made from another spec with the same id; use another folder")
    return record
