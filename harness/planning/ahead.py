"""Work ahead: independent pieces of a cell in processes of their own, beside the one that writes the record.

The pieces are those of `pieces`: something that the cache keeps, so nothing is handed back. A piece that fails here is
tried again by the process that writes the record, which records the failure. This is for one cell after the other in
one process (`harness run`); a matrix gives whole cells, and what they share, to an executor instead.

A worker ends with its parent, however that one ends. It has one pipe to its parent, and nothing else is shared: a
queue's locks are a system's semaphores, which a killed worker holds on to, and which the ends of threads leave behind.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import connection
from multiprocessing.connection import Connection
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

    def __init__(self, pipe: Connection) -> None:
        super().__init__(quiet=True)
        self.pipe, self.about = pipe, ""

    def __call__(self, label: str, done: int, total: int) -> None:
        """See `Progress`."""
        self._send((f"{label} {self.about}", done, total))

    def note(self, text: str) -> None:
        """See `Progress`."""
        self._send(text)

    def _send(self, message: object) -> None:
        with suppress(OSError):  # the parent has ended, and this process ends with it
            self.pipe.send(message)


class Ahead:
    """A pool of workers, each of which asks for its next piece; they start when they are first needed."""

    def __init__(self, workers: int, *, cache: Path, data_dir: Path | None, progress: Progress,
                 reporting: Reporting) -> None:  # fmt: skip
        self.workers = min(workers, MOST)
        self._arguments, self._progress = (cache, data_dir, reporting), progress
        self._pieces: deque[Piece] = deque()
        self._asking: list[Connection] = []
        self._hands = threading.Lock()  # on the two above
        self._taken: set[str] = set()
        self._started: list[Any] = []
        self._listener: threading.Thread | None = None

    def start(self) -> None:
        """Start the workers, once; they import their libraries while the caller goes on."""
        if self._started:
            return
        context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads in mid-air
        pipes: list[Connection] = []
        for _ in range(self.workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, *self._arguments), daemon=True)
            process.start()
            theirs.close()
            self._started.append(process)
            pipes.append(ours)
        self._listener = threading.Thread(target=self._listen, args=(pipes,), daemon=True)
        self._listener.start()

    def take(self, spec: Spec) -> None:
        """Queue the pieces of a cell, once."""
        if spec.id not in self._taken:
            self._taken.add(spec.id)
            with self._hands:
                self._pieces.extend(pieces(spec))
            self._hand_out()

    def close(self) -> None:
        """Stop now: what is finished is in the cache, the rest is not needed."""
        for process in self._started:
            process.terminate()
        for process in self._started:
            process.join(PATIENCE)
            process.kill()
            process.join()
        if self._listener is not None:
            self._listener.join(PATIENCE)

    def _hand_out(self) -> None:
        with self._hands:
            while self._pieces and self._asking:
                with suppress(OSError):  # that worker has ended: the parent makes its piece
                    self._asking.pop().send(self._pieces.popleft())

    def _listen(self, pipes: list[Connection]) -> None:
        """Life of the thread that hears the workers, until the last has ended."""
        while pipes:
            for pipe in connection.wait(pipes):
                assert isinstance(pipe, Connection)
                try:
                    message = pipe.recv()
                except (EOFError, OSError):  # it has ended, perhaps in the middle of a word
                    pipes.remove(pipe)
                    continue
                if message is None:
                    with self._hands:
                        self._asking.append(pipe)
                    self._hand_out()
                elif isinstance(message, str):
                    self._progress.note(message)
                else:
                    self._progress(*message)


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


def _serve(pipe: Connection, cache: Path, data_dir: Path | None, reporting: Reporting) -> None:
    """Life of a worker."""
    from harness.cache import Cache
    from harness.quiet import bars_without_semaphores, quiet_libraries, stdout_kept
    from harness.workshop import Workshop

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    quiet_libraries()
    bars_without_semaphores()
    _import_libraries()
    progress = _Messages(pipe)
    workshop = Workshop(cache=Cache(cache), data_dir=data_dir, progress=progress, reporting=reporting)
    with stdout_kept():
        while True:
            try:
                pipe.send(None)
                piece: Piece = pipe.recv()
            except (EOFError, OSError):  # the parent has ended
                return
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
