"""Progress on stderr: rich bars on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Said = Callable[[str, int, int], None]
"""(label, done, total), as `Progress` is called."""
T = TypeVar("T")

_BARS_EVERY = 4  # a plain log gets a line at each quarter


class Progress:
    """Call it with (label, done, total); `note` prints one line."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._live = None
        self._tasks: dict[str, object] = {}
        if not quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            self._live = RichProgress(TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(),
                                      TimeRemainingColumn(), console=Console(stderr=True), transient=True)  # fmt: skip

    @contextmanager
    def showing(self) -> Iterator[Progress]:
        """Draw bars while inside."""
        if self._live is None:
            yield self
        else:
            with self._live:
                yield self

    def __call__(self, label: str, done: int, total: int) -> None:
        """`done` of `total` of `label`; a bar appears at the first call and goes when it is full."""
        if self.quiet:
            return
        if self._live is None:
            if done and total and (done * _BARS_EVERY) // total != ((done - 1) * _BARS_EVERY) // total:
                print(f"{label}: {done}/{total}", file=sys.stderr)
            return
        if label not in self._tasks:
            self._tasks[label] = self._live.add_task(label, total=total)
        self._live.update(self._tasks[label], completed=done, total=total)  # type: ignore[arg-type]
        if done >= total:
            self._live.remove_task(self._tasks.pop(label))  # type: ignore[arg-type]

    def note(self, text: str) -> None:
        """One line of log."""
        if self.quiet:
            return
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr)


def counted(items: Iterable[T], total: int, label: str, progress: Said | None) -> Iterator[T]:
    """The items one after the other; `progress` hears how many of `total` are behind."""
    for done, item in enumerate(items, 1):
        yield item
        if progress is not None:
            progress(label, done, total)
