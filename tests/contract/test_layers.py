"""Imports run downwards through the rooms, in the order in which data walks through them."""

import ast

import pytest
from helpers import REPOSITORY

ROOMS = [
    "study",
    "imaging",
    "registration",
    "segmentation",
    "perfusion",
    "radiomics",
    "measurement",
    "reading",
    "agreement",
    "pharmacodynamics",
    "reporting",
]
LIBRARY = REPOSITORY / "workflow" / "scripts" / "corelab"
FILES = sorted(LIBRARY.rglob("*.py"))


def _rooms_imported(path):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "corelab" and len(parts) > 1 and (LIBRARY / parts[1]).is_dir():
                yield parts[1]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(LIBRARY).as_posix())
def test_imports_run_downwards(path):
    room = path.relative_to(LIBRARY).parts[0]
    for other in _rooms_imported(path):
        if other == room or other == "provenance":
            continue
        assert room != "provenance", f"provenance imports {other}"
        assert other not in {"reporting", "phantom"} or room == other, f"{room} imports {other}"
        if room == "phantom":
            assert other in {"study", "imaging", "perfusion"}
        elif room in ROOMS:
            assert ROOMS.index(other) < ROOMS.index(room), f"{room} imports {other}"
