"""Names that other packages add: perfusion engines, segmenters, registration backends and so on.

A package registers an object by an entry point of the group ``corelab.<registry>``, in its
``pyproject.toml``::

    [project.entry-points."corelab.engines"]
    toy = "my_package.engines:toy"

Its name is read from the package's metadata; the object is loaded when it is used. This is the only
module that imports by a computed name: the code digest follows :func:`files` instead.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

T = TypeVar("T")

#: Registry -> names that are part of the library.
BUILT_IN: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "engines": ("bayes", "osvd", "bsvd", "ssvd", "tikhonov"),
        "registrars": ("ants_greedy", "ants", "greedy", "flirt", "ants_cli"),
        "segmenters": ("command", "meshnet", "learned"),
        "brain_extractors": ("classical", "learned", "mindgrab"),
        "analysis_types": (),
        "statistics": (),
    }
)


class PluginError(RuntimeError):
    """A registration by a package that cannot be used."""


@cache
def _points(registry: str) -> Mapping[str, EntryPoint]:
    """Entry points of a registry by name, sorted."""
    found: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=f"corelab.{registry}"), key=lambda p: (p.name, p.value)):
        other = found.get(point.name)
        if point.name in BUILT_IN[registry] or (other and other.value != point.value):
            raise PluginError(
                f"{point.value} registers '{point.name}' in corelab.{registry}, which "
                f"{other.value if other else 'Corelab'} has already: rename one of them"
            )
        found[point.name] = point
    return found


def names(registry: str) -> tuple[str, ...]:
    """Names of a registry: the library's, then those of installed packages; nothing is loaded.

    Examples
    --------
    >>> names("engines")[:2]
    ('bayes', 'osvd')
    """
    return (*BUILT_IN[registry], *_points(registry))


class Registered(Mapping[str, T]):
    """Objects of a registry by name; those of packages are loaded when they are used."""

    def __init__(self, registry: str, own: Mapping[str, T]) -> None:
        self._registry, self._own = registry, own

    def __getitem__(self, name: str) -> T:
        """Object of a name."""
        if name in self._own:
            return self._own[name]
        point = _points(self._registry)[name]
        try:
            found: T = point.load()
        except (ImportError, AttributeError) as error:
            raise PluginError(
                f"'{name}' of corelab.{self._registry} cannot be loaded from {point.value}: "
                f"{error}. Remedy: repair or uninstall the package"
            ) from error
        return found

    def __iter__(self) -> Iterator[str]:
        """Names: the library's, then those of packages."""
        return iter((*self._own, *_points(self._registry)))

    def __len__(self) -> int:
        """Number of names."""
        return len(self._own) + len(_points(self._registry))


def registry(name: str, own: Mapping[str, T]) -> Registered[T]:
    """Objects of a registry: the library's own, and those that packages add.

    Parameters
    ----------
    name
        Registry, as a literal: the code digest reads it in the text.
    own
        Objects of the library, for exactly the names of :data:`BUILT_IN` where that lists any.

    Raises
    ------
    ValueError
        If ``own`` has other names than :data:`BUILT_IN`.
    """
    listed = BUILT_IN[name]
    if listed and set(own) != set(listed):
        raise ValueError(f"{name}: {sorted(own)} are not the listed names {sorted(listed)}")
    return Registered(name, own)


@cache
def files(registry: str) -> dict[str, Path]:
    """Files of the packages that add to a registry: name relative to its place -> path.

    Of a package all files count, of a module its file. Nothing is imported.
    """
    found: dict[str, Path] = {}
    for module in sorted({point.module.split(".")[0] for point in _points(registry).values()}):
        spec = importlib.util.find_spec(module)
        if spec is None:
            raise PluginError(f"{module} registers in corelab.{registry}, but is not installed")
        folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
        for folder in folders:
            inside = (p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
            found |= {f"{module}/{path.relative_to(folder).as_posix()}": path for path in inside}
        if not folders and spec.origin:
            found[Path(spec.origin).name] = Path(spec.origin)
    return dict(sorted(found.items()))


def packages() -> dict[str, str]:
    """Installed packages that add to a registry, with their versions."""
    points = [point for kind in BUILT_IN for point in _points(kind).values()]
    found: dict[str, Any] = {p.dist.name: p.dist.version for p in points if p.dist is not None}
    return dict(sorted(found.items()))
