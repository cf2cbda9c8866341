"""Plug-ins by name, through entry points: built-ins come in by the same door as a third party's package.

Lazy (nothing is imported until a name is asked for), typed (a wrong class is refused), a collision of names is an
error, a broken plug-in warns and is skipped, and `origin` says which distribution a name came from.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from harness.composition import SIGN, compose
from harness.errors import UsageError
from harness.models.known import KnownModel
from harness.plugins import Attack, Defense, Task
from harness.settings import unknown
from harness.suites import Suite

T = TypeVar("T")


@dataclass
class Registry(Generic[T]):
    """The names of one kind of plug-in.

    Attributes:
        kind: singular, for messages; the entry-point group is `lockbench.<kind>s`.
        base: what a plug-in must be: a subclass of it (or, for models, an instance).
        combine: makes the plug-in called `a+b` of those called a and b, where this kind can be combined.
    """

    kind: str
    base: type[Any]
    plural: str
    combine: Callable[[Mapping[str, T]], T] | None = None
    _points: dict[str, EntryPoint] = field(default_factory=dict)
    _loaded: dict[str, T] = field(default_factory=dict)
    _combined: dict[str, T] = field(default_factory=dict)
    _scanned: bool = False

    def names(self) -> list[str]:
        """Every name, sorted; imports nothing.

        Raises:
            UsageError: two distributions provide the same name.
        """
        self._scan()
        return sorted({*self._points, *self._loaded})

    def get(self, name: str) -> T:
        """The plug-in called `name`.

        Raises:
            UsageError: unknown (with the closest name), broken, or not a plug-in of this kind.
        """
        if self.combine is not None and SIGN in name:
            return self._combination(name, self.combine)
        if name not in self.names():
            raise UsageError(unknown(name, self.names(), self.kind))
        if name not in self._loaded:
            try:
                self._loaded[name] = self._check(name, self._points[name].load())
            except UsageError:
                raise
            except Exception as error:  # a plug-in may fail in any way at import
                raise UsageError(f"{self.kind} {name!r} from {self.origin(name)} is broken: {error!r}") from error
        return self._loaded[name]

    def _combination(self, name: str, combine: Callable[[Mapping[str, T]], T]) -> T:
        if name not in self._combined:
            parts = name.split(SIGN)
            if len(set(parts)) < len(parts):
                raise UsageError(f"{self.kind} {name!r} names a part twice")
            self._combined[name] = combine({part: self.get(part) for part in parts})
        return self._combined[name]

    def working(self) -> dict[str, T]:
        """Every plug-in that loads, by name; a broken one warns and is skipped."""
        found: dict[str, T] = {}
        for name in self.names():
            try:
                found[name] = self.get(name)
            except UsageError as error:
                warnings.warn(f"skipped: {error}", RuntimeWarning, stacklevel=2)
        return found

    def origin(self, name: str) -> str:
        """`distribution version` that provides `name`, or `this process`."""
        point = self._points.get(name)
        return _title(point.dist) if point is not None and point.dist else "this process"

    def add(self, name: str, plugin: T) -> None:
        """Register in this process only (notebooks, tests).

        Raises:
            UsageError: the name is taken, or the plug-in is of another kind.
        """
        if name in self.names():
            raise UsageError(f"{self.kind} {name!r} is already provided by {self.origin(name)}")
        self._loaded[name] = self._check(name, plugin)

    def _check(self, name: str, plugin: T) -> T:
        good = issubclass(plugin, self.base) if isinstance(plugin, type) else isinstance(plugin, self.base)
        if not good:
            raise UsageError(f"{self.kind} {name!r} from {self.origin(name)} is not a {self.base.__name__}: {plugin!r}")
        return plugin

    def _scan(self) -> None:
        if self._scanned:
            return
        for point in entry_points(group=f"lockbench.{self.plural}"):
            known = self._points.get(point.name)
            if known is not None and (known.value, known.dist and known.dist.name) != (
                point.value,
                point.dist and point.dist.name,
            ):
                both = sorted(f"{p.dist.name if p.dist else '?'} ({p.value})" for p in (known, point))
                raise UsageError(f"{self.kind} {point.name!r} is provided twice: {' and '.join(both)}; uninstall one")
            self._points[point.name] = point
        self._scanned = True


@cache
def _title(distribution: Distribution) -> str:
    """`name version`; once for all its plug-ins, because each look parses the whole of its metadata."""
    return f"{distribution.name} {distribution.version}"


@cache
def defenses() -> Registry[type[Defense]]:
    """All locks."""
    return Registry("defense", Defense, "defenses", combine=compose)


@cache
def attacks() -> Registry[type[Attack]]:
    """All attacks."""
    return Registry("attack", Attack, "attacks")


@cache
def tasks() -> Registry[type[Task]]:
    """All tasks."""
    return Registry("task", Task, "tasks")


@cache
def suites() -> Registry[Suite]:
    """All suites of attacks."""
    return Registry("suite", Suite, "suites")


@cache
def models() -> Registry[KnownModel]:
    """All models known by name."""
    return Registry("model", KnownModel, "models")
