"""Every table of a paper plans without torch, has an adaptive attack, and the size of the paper beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.planning.grid import plan, split_file
from harness.strict_yaml import read_yaml

ROOT = Path(__file__).parents[2]
SPECS = sorted((ROOT / "reproductions").glob("*/*.yaml"))
SMALL = [path for path in SPECS if not path.stem.endswith(("_paper", "_longer", "_seeds"))]
"""A table's longer attacks are of this project, and have no size of a paper."""


def named(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", SPECS, ids=named)
def test_a_table_plans(path: Path) -> None:
    cells = plan(*split_file(read_yaml(path)))
    assert len({cell.id for cell in cells}) == len(cells)
    assert any(cell.attack["name"] not in ("full", "authorised") for cell in cells), (
        "an adaptive attack beside the paper's"
    )


@pytest.mark.parametrize("path", SMALL, ids=named)
def test_a_table_has_the_papers_size_beside_it(path: Path) -> None:
    paper = plan(*split_file(read_yaml(path.with_stem(f"{path.stem}_paper"))))
    small = plan(*split_file(read_yaml(path)))
    assert {cell.defense["name"] for cell in paper} == {cell.defense["name"] for cell in small}
    assert max(cell.attack["max_steps"] for cell in paper) > max(cell.attack["max_steps"] for cell in small)
    assert all(cell.replicates >= 3 for cell in paper)


def test_planning_all_of_them_imports_no_torch() -> None:
    code = (
        "import json, sys; from pathlib import Path\n"
        "from harness.planning.grid import plan, split_file\nfrom harness.strict_yaml import read_yaml\n"
        "count = sum(len(plan(*split_file(read_yaml(Path(path))))) for path in sys.argv[1:])\n"
        "print(json.dumps([count, 'torch' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code, *map(str, SPECS)], text=True, capture_output=True, check=True)
    count, torch = json.loads(done.stdout)
    assert count > len(SPECS)
    assert not torch
