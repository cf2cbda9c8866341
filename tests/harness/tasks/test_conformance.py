"""Every task passes the conformance kit; those of the data pack where it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from classifier_cases import small_resnet

from harness import registry
from harness.errors import UsageError
from harness.models.architectures import classifier_from
from harness.plugins import Released
from harness.testing import TaskConformance, random_llama
from harness.testing.models import released

SMALL = {"train_bytes": 60_000, "max_items": 20, "max_train": 60, "people": 8, "values": 4}


def _case(name: str) -> type[TaskConformance]:
    kind: Any = registry.tasks().get(name)
    folder = os.environ.get("HARNESS_DATA")

    def target(cls: Any) -> Released:
        if kind.kind == "image_classification":
            return small_resnet(cls.build().labels)
        if kind.kind == "sequence_classification":
            return released(classifier_from(released(random_llama()), cls.build().labels).eval())
        return released(random_llama(max_position_embeddings=1024))

    @pytest.fixture(autouse=True)
    def there(self: Any) -> None:
        try:
            self.task().digest()
        except UsageError as error:
            if kind.needs_pack:
                pytest.skip(str(error))
            raise

    few = SMALL | ({"max_items": 300} if kind.kind == "image_classification" else {})  # of ten classes, one is scored
    settings = {key: value for key, value in few.items() if key in kind.Settings.model_fields}
    body = {"kind": kind, "settings": settings, "data_dir": Path(folder) if folder else None,
            "target": classmethod(target), "_there": there}  # fmt: skip
    made: type[TaskConformance] = type(f"Test_{name}", (TaskConformance,), body)
    return pytest.mark.pack(made) if kind.needs_pack else made


for _name in registry.tasks().names():
    globals()[f"Test_{_name}"] = _case(_name)
