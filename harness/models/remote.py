"""Remote code of an exported folder: what plain `transformers` needs to build a locked model without our packages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.models import derived

ENTRY = "modeling_locked"
"""The module that the auto map names; made at export, from the parts that are there."""
_ENTRY = '''"""The classes of this checkpoint, made when `transformers` asks for them (written by lockbench)."""

from .derived import class_named
{imports}


def __getattr__(name):
    return class_named(name, ({parts},), __name__)
'''


def write_code(locked: Any, folder: Path, modeling: Path) -> None:
    """Add one lock's modeling file to the folder, and let config.json's auto map lead to the classes of all of them.

    Args:
        locked: a model made by `harness.models.derived.convert`.
        folder: where its weights and config.json are or will be; entries of config.json are kept.
        modeling: a lock's `modeling_*.py`. It has the lock's `PART` and imports, beside torch and transformers, nothing
            but `harness.models.derived`, which lies beside it in the folder.
    """
    (folder / "derived.py").write_text(Path(derived.__file__).read_text())
    text = modeling.read_text().replace("from harness.models.derived import", "from .derived import")
    (folder / modeling.name).write_text(text)
    parts = sorted(path.stem for path in folder.glob("modeling_*.py") if path.stem != ENTRY)
    imports = "\n".join(f"from .{part} import PART as {part}" for part in parts)
    (folder / f"{ENTRY}.py").write_text(_ENTRY.format(imports=imports, parts=", ".join(parts)))
    path = folder / "config.json"
    config: dict[str, Any] = json.loads(path.read_text()) if path.exists() else locked.config.to_diff_dict()
    name, kind = type(locked).__name__, type(locked.config).__name__
    config |= {
        "architectures": [name], "model_type": locked.config.model_type,
        "auto_map": {"AutoConfig": f"{ENTRY}.{kind}", derived.auto_class_of(name): f"{ENTRY}.{name}"},
    }  # fmt: skip
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
