"""Code digests: a rule reruns when its script, or library code that it uses, has changed.

Snakemake sees an edit of a rule's script but not one of a module that the script imports. Every
rule therefore has ``params: code=digest_of_script(...)``.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from corelab.terms import plugins

PACKAGE = "corelab"
#: Before the name of a registry in the list of what a file imports.
_REGISTRY = "registry:"
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


def _imports(path: Path, root: Path) -> tuple[str, ...]:
    """Names of the package's modules that a file imports, anywhere in it."""
    return _parsed(path, root, _content(path))


#: Imports and opened registries in a file's text: a tenth of the time of parsing it. That both give
#: the same for every file is tested, and that the library has no relative import.
_NAMED = re.compile(
    rf"^[ \t]*(?:from ({PACKAGE}\b[\w.]*) import (\([^)]*\)|[^\n]*)|import ([^\n]+))", re.MULTILINE
)
_OPENED = re.compile(r"\bregistry\(\s*[\"'](\w+)[\"']")
_COMMENT = re.compile(r"#[^\n]*")


@functools.cache
def _parsed(path: Path, root: Path, content: bytes) -> tuple[str, ...]:
    """Imports of a file with this content: read again only where the content has changed."""
    text = path.read_text(encoding="utf-8")
    names = {_REGISTRY + name for name in _OPENED.findall(text)}
    for module, members, plain in _NAMED.findall(text):
        listed = _COMMENT.sub("", members or plain).strip("() \t\n").split(",")
        found = {one.split()[0] for one in listed if one.strip()}
        if module:
            names |= {module, *(f"{module}.{name}" for name in found)}
        else:
            names |= {name for name in found if name.split(".")[0] == PACKAGE}
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


def _modules_of(script: Path, root: Path) -> Iterator[Path]:
    """Files of the library that a script uses: imports followed, parents included.

    Where one of them opens a registry, the files of the packages that add to it are among them.
    ``root`` is the folder of the package.
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
    """
    path = Path(script)
    root = path.parent
    files = [path, *_modules_of(path, root)]
    added = {path: name for kind in plugins.BUILT_IN for name, path in plugins.files(kind).items()}
    folders = {f.parent for f in files if f.name != "__init__.py" and f not in added} - {root}
    for folder in sorted(folders):
        files += _data_files(folder)
    summary = hashlib.sha256()
    for file in dict.fromkeys(files):
        summary.update((added.get(file) or str(file.relative_to(root))).encode())
        summary.update(_content(file))
    return summary.hexdigest()[:16]
