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
    *("imaging", "learned", "registration", "segmentation", "measurement", "radiomics", "reading"),
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


@pytest.fixture(scope="module")
def trees():
    """Module -> its syntax tree: parsed once for all tests here."""
    return {name: ast.parse(path.read_text()) for name, path in NAMES.items()}


def may_import(package, other):
    """Whether modules of a package may import from another one ("": the library itself)."""
    if package == "terms":
        return other in {"", "terms"}
    if other in {"", package, "provenance"} or other not in {*PACKAGES, "phantom", "learned"}:
        return True
    if package == "provenance":
        return other in {"terms", "settings"}
    if other in {"phantom", "workflow"}:
        return False
    if other == "learned":
        return package in {"imaging", "segmentation"}
    if package == "learned":
        return PACKAGES.index(other) <= PACKAGES.index("imaging")
    if other == "reporting":
        return package == "workflow"
    if package == "phantom":
        return other in {"terms", "settings", "records", "study", "imaging"}
    return package not in PACKAGES or PACKAGES.index(other) < PACKAGES.index(package)


def part(name):
    """Package of a module."""
    return name.split(".")[1] if "." in name else ""


def test_imports_run_downwards(trees):
    wrong = [
        f"{NAMES[name].relative_to(LIBRARY)}:{line}: {part(name)} imports {other}"
        for name, tree in trees.items()
        for other, line in imports_of(tree)
        if not may_import(part(name), part(other))
    ]
    assert not wrong, "\n".join(wrong)


def test_an_import_upwards_is_found():
    assert may_import("imaging", "study") and not may_import("study", "imaging")
    assert not may_import("terms", "settings") and not may_import("provenance", "study")
    assert not may_import("plan", "reporting") and may_import("workflow", "reporting")
    assert may_import("learned", "imaging") and not may_import("learned", "segmentation")
    assert may_import("segmentation", "learned") and not may_import("study", "learned")
    assert not may_import("phantom", "plan") and not may_import("plan", "phantom")


def test_cycles_are_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a", "e"}, "e": set()}
    assert cycles(graph) == [{"a", "b", "c"}]


def test_no_import_cycle(trees):
    graph = {
        name: {other for other, _ in imports_of(tree)} - {name} for name, tree in trees.items()
    }
    found = [{name.removeprefix("corelab.") for name in part} for part in cycles(graph)]
    assert not found, f"import cycles: {found}: move what the modules share to a module of its own"


def test_own_modules_are_imported_at_the_top(trees):
    late = [
        f"{NAMES[name].relative_to(LIBRARY)}:{line}: {other}"
        for name, tree in trees.items()
        if part(name) in TOP_ONLY
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        for other, line in imports_of(node)
        if other not in HEAVY
    ]
    assert not late, "import own modules at the top of the file:\n" + "\n".join(late)
