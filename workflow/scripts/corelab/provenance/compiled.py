"""Compiled loops that are kept on disk: compiling takes seconds, and every job is a process.

numba keeps them beside the source by default, which would leave files in a clone of the
repository. Here they are kept in the environment that runs the code, so that they go when it goes.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any


@lru_cache(maxsize=1)
def _cache_folder() -> Path | None:
    """Folder for compiled loops: NUMBA_CACHE_DIR, the environment's, the user's, or None.

    Without one, each process compiles. Several jobs may write at once: numba renames a complete
    file.
    """
    given = os.environ.get("NUMBA_CACHE_DIR")
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    places = [Path(given)] if given else []
    places += [Path(sys.prefix) / "var" / "cache" / "corelab", user / "corelab"]
    return next((folder for folder in places if _writable(folder)), None)


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


#: Loops that were defined, and the types of arguments that they are called with.
_DEFINED: list[tuple[Any, tuple[str, ...]]] = []


def compiled(fastmath: Iterable[str], *types: str) -> Callable[[Callable[..., Any]], Any]:
    """Decorator: ``numba.njit`` without the interpreter's lock, kept on disk where possible.

    The same source, processor and version of numba give the same machine code, kept or not.

    Parameters
    ----------
    fastmath
        Freedoms of floating-point arithmetic (flags of LLVM).
    types
        Types of the arguments as numba writes them (``f4[:, ::1], f8``), of each way in which the
        loop is called, for :func:`compile_ahead`. With others it is compiled when it is called.

    Examples
    --------
    >>> compiled({"contract"})(lambda x: 2.0 * x)(1.5)
    3.0
    """
    import numba

    folder = _cache_folder()
    if folder is not None:
        numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]

    def decorate(function: Callable[..., Any]) -> Any:
        keep = folder is not None and Path(function.__code__.co_filename).is_file()
        made = numba.njit(nogil=True, fastmath=set(fastmath), cache=keep)(function)
        _DEFINED.append((made, types))
        return made

    return decorate


def compile_ahead() -> int:
    """Compile every loop that was imported for the types that it names; how many there were."""
    from numba.core.sigutils import normalize_signature

    wanted = [(loop, one) for loop, types in _DEFINED for one in types]
    for loop, one in wanted:
        # Kept under what it is given: the types themselves, as of a call.
        loop.compile(normalize_signature(f"({one})")[0])
    return len(wanted)
