"""What holds for a plug-in of any kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from harness.errors import UsageError
from harness.plugins import Plugin
from harness.testing.cases import no_network


class PluginConformance:
    """The part that locks, attacks and tasks share; subclass the class of your kind instead."""

    kind: ClassVar[type[Any]]
    """The plug-in."""
    settings: ClassVar[Mapping[str, Any]] = {}
    """Its settings in these tests, where they must be small; the others have their defaults."""

    @pytest.fixture(autouse=True)
    def _closed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        no_network(monkeypatch)

    @classmethod
    def build(cls, **changes: Any) -> Any:
        """The plug-in with `settings`, some changed."""
        return cls.kind(cls.kind.Settings.parse({**cls.settings, **changes}, "settings"))

    def test_it_says_what_it_is(self) -> None:
        assert issubclass(self.kind, Plugin)
        assert len(self.kind.summary()) > 10, "the first line of the class docstring is shown by `harness list`"
        undocumented = [name for name, info in self.kind.Settings.model_fields.items() if not info.description]
        assert not undocumented, "write a string below each setting"

    def test_its_settings_survive_the_record_and_refuse_strangers(self) -> None:
        settings = self.build().settings
        assert self.kind.Settings.parse(settings.model_dump(mode="json"), "settings") == settings
        with pytest.raises(UsageError, match="unknown setting"):
            self.build(no_such_setting=1)
