"""Imports run downwards through the packages, in the order of the data flow, and in no cycle."""

import ast

import pytest
from helpers import REPOSITORY

PACKAGES = [
    "terms",
    "settings",
    "records",
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
    "plan",
    "reporting",
    "workflow",
]
SCRIPTS = REPOSITORY / "workflow" / "scripts"
LIBRARY = SCRIPTS / "corelab"
FILES = sorted(LIBRARY.rglob("*.py"))

#: Packages whose own modules are imported at the top of a file only.
TOP_ONLY = (
    *("imaging", "registration", "segmentation", "measurement", "radiomics", "reading"),
    "agreement",
    *("phantom", "workflow"),
)
#: Own modules that load a heavy third-party package at their top (Numba, Nipype, pandas).
HEAVY = {
    *("corelab.imaging.kernels", "corelab.imaging.meshnet", "corelab.imaging.meshnet_kernels"),
    "corelab.segmentation.external",
}


def module_name(path):
    parts = path.relative_to(SCRIPTS).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {module_name(path): path for path in FILES}


def imports_of(tree):
    """Modules of the library that a tree imports, with the line."""
    for node in ast.walk(tree):
        found = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [name if name in NAMES else node.module for name in whole]
        yield from ((name, node.lineno) for name in dict.fromkeys(found) if name in NAMES)


def cycles(graph):
    """Strongly connected components of more than one node (Tarjan, SIAM J Comput 1972;1:146)."""
    order, low, stack, found = {}, {}, [], []

    def visit(node):
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in graph[node]:
            if other not in order:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == order[node]:
            place = stack.index(node)
            part = set(stack[place:])
            del stack[place:]
            if len(part) > 1:
                found.append(part)

    for node in graph:
        if node not in order:
            visit(node)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(LIBRARY).as_posix())
def test_imports_run_downwards(path):
    package = path.relative_to(LIBRARY).parts[0]
    for name, line in imports_of(ast.parse(path.read_text())):
        other = name.split(".")[1] if "." in name else ""
        assert package != "terms" or other in {"", "terms"}, f"{path.name}:{line}: {name}"
        if other in {"", package, "provenance"} or other not in {*PACKAGES, "phantom"}:
            continue
        where = f"{path.name}:{line}: {package} imports {other}"
        assert package != "provenance" or other in {"terms", "settings"}, where
        assert other not in {"phantom", "workflow"}, where
        assert other != "reporting" or package == "workflow", where
        if package == "phantom":
            assert other in {"terms", "settings", "records", "study", "imaging"}, where
        elif package in PACKAGES:
            assert PACKAGES.index(other) < PACKAGES.index(package), where


def test_cycles_are_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a", "e"}, "e": set()}
    assert cycles(graph) == [{"a", "b", "c"}]


def test_no_import_cycle():
    graph = {
        name: {other for other, _ in imports_of(ast.parse(path.read_text()))} - {name}
        for name, path in NAMES.items()
    }
    found = [{name.removeprefix("corelab.") for name in part} for part in cycles(graph)]
    assert not found, f"import cycles: {found}: move what the modules share to a module of its own"


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.relative_to(LIBRARY).parts[0] in TOP_ONLY],
    ids=lambda p: p.relative_to(LIBRARY).as_posix(),
)
def test_own_modules_are_imported_at_the_top(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            late = {name: line for name, line in imports_of(node) if name not in HEAVY}
            assert not late, f"{path.name}: {late}: import own modules at the top of the file"
