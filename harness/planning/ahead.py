"""Work ahead: independent pieces of a cell in processes of their own, beside the one that writes the record.

The pieces are those of `pieces`: something that the cache keeps, so nothing is handed back. A piece that fails here is
tried again by the process that writes the record, which records the failure. This is for one cell after the other in
one process (`harness run`); a matrix gives whole cells, and what they share, to an executor instead.

A worker ends with its parent, however that one ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.planning.pieces import Piece, make
from harness.progress import Progress
from harness.threads import usable_cores

if TYPE_CHECKING:
    from harness.spec import Spec
    from harness.tracking import Reporting
    from harness.workshop import Workshop

MOST = 8
"""Workers at most: each holds torch and its libraries, about 1 GB."""
PATIENCE = 3.0
"""Seconds that a worker has to leave in good order."""


def pieces(spec: Spec) -> list[Piece]:
    """What a worker can do while the lock is being made, then the attacks on it, of both the last first.

    The process that writes the record goes through them from the first, so the two meet in the middle.
    """
    raw = spec.model_dump(mode="json")
    runs = range(spec.replicates - 1, -1, -1)
    return [Piece(raw, "base"), *(Piece(raw, kind, index) for kind in ("reference", "attacked") for index in runs)]


class _Messages(Progress):
    """Progress of a worker: sent to the parent, which owns the terminal."""

    def __init__(self, queue: Any) -> None:
        super().__init__(quiet=True)
        self.queue, self.about = queue, ""

    def __call__(self, label: str, done: int, total: int) -> None:
        """See `Progress`."""
        self.queue.put((f"{label} {self.about}", done, total))

    def note(self, text: str) -> None:
        """See `Progress`."""
        self.queue.put(text)


class Ahead:
    """A pool of workers over one queue of pieces; it starts when it is first needed."""

    def __init__(self, workers: int, *, cache: Path, data_dir: Path | None, progress: Progress,
                 reporting: Reporting) -> None:  # fmt: skip
        self.workers = min(workers, MOST)
        self._arguments, self._progress = (cache, data_dir, reporting), progress
        self._context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads in mid-air
        self._pieces, self._messages = self._context.Queue(), self._context.Queue()
        self._taken: set[str] = set()
        self._started: list[Any] = []

    def start(self) -> None:
        """Start the workers, once; they import their libraries while the caller goes on."""
        if self._started:
            return
        for _ in range(self.workers):
            arguments = (self._pieces, self._messages, *self._arguments)
            process = self._context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            self._started.append(process)
        threading.Thread(target=_show, args=(self._messages, self._progress), daemon=True).start()

    def take(self, spec: Spec) -> None:
        """Queue the pieces of a cell, once."""
        if spec.id not in self._taken:
            self._taken.add(spec.id)
            for piece in pieces(spec):
                self._pieces.put(piece)

    def close(self) -> None:
        """Stop now: what is finished is in the cache, the rest is not needed."""
        for process in self._started:
            process.terminate()
        for process in self._started:
            process.join(PATIENCE)
            process.kill()
            process.join()
        self._messages.put(None)


@contextmanager
def working_ahead(workshop: Workshop, workers: int | None) -> Iterator[None]:
    """Inside, other processes make pieces of the workshop's cells.

    Args:
        workshop: whose cells; it is alone again afterwards.
        workers: processes in all, this one included; None is one a usable core. A model that uses several threads
            itself, or a GPU, is not shared out whatever the number.
    """
    others = (usable_cores() if workers is None else workers) - 1
    if others < 1:
        yield
        return
    workshop.ahead = Ahead(others, cache=workshop.cache.root, data_dir=workshop.data_dir, progress=workshop.progress,
                           reporting=workshop.reporting)  # fmt: skip
    try:
        yield
    finally:
        workshop.ahead.close()
        workshop.ahead = None


def _show(messages: Any, progress: Progress) -> None:
    while (message := messages.get()) is not None:
        if isinstance(message, str):
            progress.note(message)
        else:
            progress(*message)


def _serve(pieces_: Any, messages: Any, cache: Path, data_dir: Path | None, reporting: Reporting) -> None:
    """Life of a worker."""
    from harness.cache import Cache
    from harness.quiet import quiet_libraries, stdout_kept
    from harness.workshop import Workshop

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    quiet_libraries()
    _import_libraries()
    progress = _Messages(messages)
    workshop = Workshop(cache=Cache(cache), data_dir=data_dir, progress=progress, reporting=reporting)
    with stdout_kept():
        while True:
            piece: Piece = pieces_.get()
            progress.about = f"({piece.kind} {piece.replicate + 1})"
            try:
                make(piece, workshop)
            except BaseException as error:  # whatever it is, the parent meets it too, and records it
                if not isinstance(error, Exception):
                    raise
                progress.note(f"    {type(error).__name__} in a worker: {' '.join(str(error).split())[:200]}")


def _import_libraries() -> None:
    """What every piece needs, imported while the caller still loads the model: seconds off the first piece."""
    import accelerate  # noqa: F401
    import transformers.generation
    import transformers.modeling_utils  # noqa: F401

    import harness.training  # noqa: F401


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    sys.stderr.flush()
    os._exit(1)
