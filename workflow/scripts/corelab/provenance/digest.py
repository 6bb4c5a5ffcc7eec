"""Code digests: a rule reruns when its script, or library code that it uses, has changed.

Snakemake sees an edit of a rule's script but not one of a module that the script imports. Every
rule therefore has ``params: code=digest_of_script(...)``.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from corelab.terms import plugins

PACKAGE = "corelab"
#: Before the name of a registry in the list of what a file imports.
_REGISTRY = "registry:"
#: What :func:`statements` finds: imports, also over several lines, and registries. To parse whole
#: files would take a second at each start of the workflow.
_STATEMENTS = re.compile(
    r"""(?:^|(?<=[;:]))[ \t]*(?:from[ \t]+[\w.]+[ \t]+import\b|import[ \t])
        (?:[ \t]*\((?:\#[^\n]*|[^()\#])*\)|(?:\\\n|[^\n;])*)
      | (?<![\w.])registry\(\s*["']\w+["']""",
    re.M | re.X,
)
#: Files beside modules that change what the code does: presets, templates, vendored scripts.
_SKIPPED_SUFFIXES = {".py", ".pyc", ".nbi", ".nbc"}


@functools.cache
def _module_file(root: Path, name: str) -> Path | None:
    path = root.joinpath(*name.split("."))
    if (path / "__init__.py").is_file():
        return path / "__init__.py"
    return path.with_suffix(".py") if path.with_suffix(".py").is_file() else None


@functools.cache
def _content(path: Path) -> bytes:
    """Digest of a file; scripts share most of the library, so each file is read once."""
    return hashlib.sha256(path.read_bytes()).digest()


def statements(text: str) -> Iterator[ast.AST]:
    r"""Imports and registries in a module's text, anywhere in it.

    A line of prose that reads as an import is one, too: the digest then follows more than needed.

    Examples
    --------
    >>> found = statements("import os\ndef f():\n    from a import (b,\n        c)\n")
    >>> [ast.unparse(node) for node in found]
    ['import os', 'from a import b, c']
    """
    for match in _STATEMENTS.finditer(text):
        statement = textwrap.dedent(match[0])
        try:
            (node,) = ast.parse(statement + ")" * statement.startswith("registry")).body
        except SyntaxError:
            continue  # prose
        yield node.value if isinstance(node, ast.Expr) else node


def _imports(path: Path, root: Path) -> tuple[str, ...]:
    """Names of the package's modules that a file imports, anywhere in it."""
    return _parsed(path, root, _content(path))


@functools.cache
def _parsed(path: Path, root: Path, content: bytes) -> tuple[str, ...]:
    """Imports of a file with this content: searched again only where the content has changed."""
    text = path.read_text(encoding="utf-8")
    names: set[str] = set()
    for node in statements(text):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if alias.name.split(".")[0] == PACKAGE}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            if node.module.split(".")[0] == PACKAGE:
                names.add(node.module)
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level and path.is_relative_to(root):
            package = path.parent
            for _ in range(node.level - 1):
                package = package.parent
            prefix = ".".join(package.relative_to(root).parts)
            module = f"{prefix}.{node.module}" if node.module else prefix
            names.add(module)
            names |= {f"{module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and getattr(node.func, "id", None) == "registry":
            names.add(_REGISTRY + ast.literal_eval(node.args[0]))
    return tuple(sorted(names))


@functools.cache
def _data_files(folder: Path) -> tuple[Path, ...]:
    """Files beside a folder's modules, below it too."""
    return tuple(
        sorted(
            file
            for file in folder.rglob("*")
            if file.is_file()
            and file.suffix not in _SKIPPED_SUFFIXES
            and "__pycache__" not in file.parts
        )
    )


def clear_caches() -> None:
    """Forget what was read, where files may have changed since."""
    for cached in (_module_file, _content, _data_files, digest_of_script):
        cached.cache_clear()


def modules_of(script: Path, root: Path) -> Iterator[Path]:
    """Files of the library that a script uses: imports followed, parents included.

    Where one of them opens a registry, the files of the packages that add to it are among them.

    Parameters
    ----------
    script
        A rule's script.
    root
        Folder that holds the package.
    """
    seen: set[Path] = set()
    names: set[str] = set()
    waiting = list(_imports(script, root))
    while waiting:
        name = waiting.pop()
        if name in names:
            continue
        names.add(name)
        if name.startswith(_REGISTRY):
            added = set(plugins.files(name.removeprefix(_REGISTRY)).values()) - seen
            seen |= added
            for own in added:
                waiting.extend(_imports(own, root) if own.suffix == ".py" else ())
            continue
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            file = _module_file(root, ".".join(parts[:end]))
            if file is not None and file not in seen:
                seen.add(file)
                waiting.extend(_imports(file, root))
    yield from sorted(seen)


@functools.cache
def digest_of_script(script: str) -> str:
    """Digest of a script, of every library module that it imports, and of their data files.

    Parameters
    ----------
    script
        Path of a script that lies beside the package folder.

    Returns
    -------
    str
        16 hexadecimal characters. Paths enter relative to the folder, so a clone elsewhere has
        the same digest.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> root = pathlib.Path(tempfile.mkdtemp())
    >>> (root / "corelab").mkdir(); _ = (root / "corelab" / "__init__.py").write_text("")
    >>> _ = (root / "corelab" / "a.py").write_text("X = 1")
    >>> _ = (root / "run.py").write_text("from corelab.a import X")
    >>> first = digest_of_script(str(root / "run.py"))
    >>> _ = (root / "corelab" / "a.py").write_text("X = 2")
    >>> clear_caches(); first == digest_of_script(str(root / "run.py"))
    False
    """
    path = Path(script)
    root = path.parent
    files = [path, *modules_of(path, root)]
    added = {path: name for kind in plugins.BUILT_IN for name, path in plugins.files(kind).items()}
    folders = {f.parent for f in files if f.name != "__init__.py" and f not in added} - {root}
    for folder in sorted(folders):
        files += _data_files(folder)
    summary = hashlib.sha256()
    for file in dict.fromkeys(files):
        summary.update((added.get(file) or str(file.relative_to(root))).encode())
        summary.update(_content(file))
    return summary.hexdigest()[:16]
